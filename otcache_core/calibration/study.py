"""Names of studies, and the study that belongs to a model."""

from typing import TYPE_CHECKING

from .places import Place, find_place
from .same_model import RUNS, digest, name_of_model
from .scoring import Scorer
from .storages import import_optuna, open_storage, opening

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
    scorer: Scorer, budget: int, storage: str | Place | None = None, context: str = "", identity: str = ""
) -> "optuna.Study":
    """The study of this problem and this model, a new one if there is none.

    A model is known by its `identity`. Without one, studies are told apart by the full runs that they were made with, which
    must be this model's but for rounding. Raises `OTCacheError` for a storage that cannot be opened.
    """
    optuna = import_optuna()
    place = find_place(storage)
    opened = open_storage(place)
    options = {"storage": opened, "pruner": optuna.pruners.WilcoxonPruner(p_threshold=0.2)}
    name = study_name(scorer, budget, context, identity)
    with opening(place):
        if identity:
            return optuna.create_study(study_name=name, load_if_exists=True, **options)
        names = [used for used in optuna.get_all_study_names(opened) if used.startswith(f"{name}-")]
        known = ((used, optuna.load_study(study_name=used, **options).user_attrs.get(RUNS)) for used in names)
        own = name_of_model(name, scorer.signature, known)
        if own in names:  # opening one again writes nothing, so that it works on a full disk
            study = optuna.load_study(study_name=own, **options)
        else:
            study = optuna.create_study(study_name=own, load_if_exists=True, **options)
        if RUNS not in study.user_attrs:
            study.set_user_attr(RUNS, scorer.signature)
        return study
