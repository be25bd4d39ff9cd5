"""Where searches are kept: names of studies, the storage, and the study that belongs to a model."""

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import OTCacheError
from .same_model import RUNS, alike, digest
from .scoring import Scorer

if TYPE_CHECKING:
    import optuna


def study_name(scorer: Scorer, budget: int, context: str = "", identity: str = "") -> str:
    """A name equal only for equal problems: grid, budget, predictor, metric, calibration cases, `context` and `identity`.

    Which model it is, is not in it unless `identity` says so.
    """
    group = scorer.groups[0]
    return f"otcache-B{budget}-" + digest([
        scorer.sigmas.tolist(), budget, group.predictor.model_dump(), group.ridge, scorer.metric.__name__,
        [str(case) for g in scorer.groups for case in g.cases], len(group.cases), context, identity,
    ])  # fmt: skip


def open_study(
    scorer: Scorer, budget: int, storage: str | None = None, context: str = "", identity: str = ""
) -> "optuna.Study":
    """The study of this problem and this model, a new one if there is none.

    A model is known by its `identity`. Without one, studies are told apart by the full runs that they were made with, which
    must be this model's but for rounding. Raises `OTCacheError` for a storage that cannot be opened.
    """
    optuna = import_optuna()
    opened = open_storage(storage)
    options = {"storage": opened, "pruner": optuna.pruners.WilcoxonPruner(p_threshold=0.2)}
    name = study_name(scorer, budget, context, identity)
    with reported(storage):
        if identity:
            return optuna.create_study(study_name=name, load_if_exists=True, **options)
        for known in optuna.get_all_study_names(opened):
            if known.startswith(f"{name}-"):
                study = optuna.load_study(study_name=known, **options)
                if alike(study.user_attrs.get(RUNS), scorer.signature):
                    return study
        # The name has the runs in it too: two models that begin at the same moment do not get one study.
        own = f"{name}-{digest(scorer.signature)}"
        study = optuna.create_study(study_name=own, load_if_exists=True, **options)
        study.set_user_attr(RUNS, scorer.signature)
        return study


def open_storage(storage: str | None):
    """An Optuna storage from a URL, a path of an SQLite file, or None for memory; raises `OTCacheError` if it fails."""
    optuna = import_optuna()
    if storage is None:
        return optuna.storages.InMemoryStorage()
    from sqlalchemy import URL  # Optuna's own dependency

    with reported(storage):
        if not storage.strip():
            raise ValueError("the path is empty")
        # Rendered by SQLAlchemy, since "?" and "%" mean something in a URL.
        path = URL.create("sqlite", database=storage).render_as_string()
        return optuna.storages.RDBStorage(storage if "://" in storage else path)


@contextmanager
def reported(storage: str | None):
    """Turn what SQLAlchemy and its drivers raise, a zoo of types, into `OTCacheError`."""
    try:
        yield
    except Exception as error:
        reason = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
        raise OTCacheError(
            f"The storage {storage} cannot be opened ({reason}); give the path of a new file in an existing folder, "
            "or a database URL that you may write to."
        ) from None


def import_optuna():
    """Optuna, imported only when a search begins; raises `OTCacheError` with the command that installs it."""
    try:
        import optuna
    except ImportError:
        raise OTCacheError('The anchor search needs Optuna: run "pip install optuna" in the same environment.') from None
    for category in (optuna.exceptions.ExperimentalWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(.*\.)?otcache_core\.calibration\.(search|study)|optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it logs a traceback when a trial is interrupted
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return optuna
