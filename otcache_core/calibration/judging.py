"""Pictures of full runs, and how far those of cached runs are from them."""

from collections.abc import Iterator, Sequence

import torch

from ..sampling.filed import Filed, Files, fetched, give_back
from ..sampling.generator import Generator, layout_of
from ..sampling.patches import sample_of
from ..sampling.rollout import FILED
from ..sampling.trajectory import Trajectory
from .metrics import Metric, psnr

WAITING = 2**27  # bytes of latents in memory that wait to be decoded


class Judge:
    """Compares final latents with those of the full runs of groups of cases, `groups`, by `metric` of what they decode to.

    Large latents, which are recorded as samples, are decoded and compared one at a time, and wait in files as their pictures
    do. room: bytes of latents that may wait.
    """

    def __init__(self, generator: Generator, groups: Sequence[Sequence[Trajectory]], metric: Metric):
        self.generator, self.metric = generator, metric
        self._files = Files() if groups[0][0].patches else None
        self.room = WAITING * (FILED if self._files else 1)
        self._references = []
        for runs in groups:
            batches = (run.final[None] for run in runs) if self._files else [torch.stack([run.final for run in runs])]
            # On the CPU: those of all cases need not lie where the model wants to be.
            self._references.append([self.put_by(generator.decode(batch).cpu()) for batch in batches])

    def put_by(self, tensor: torch.Tensor) -> torch.Tensor | Filed:
        """What waits: large latents, and their pictures, in a file."""
        return self._files.put(tensor) if self._files else tensor

    def pieces(self, latents: torch.Tensor) -> list[torch.Tensor] | list[Filed]:
        """Final latents [n, ...] as they wait to be decoded: large ones one at a time, in files."""
        return [self.put_by(some) for some in latents.split(1 if self._files else len(latents))]

    def full(self) -> Iterator[torch.Tensor]:
        """The pictures of all cases [3, H, W]."""
        for batches in self._references:
            for batch in batches:
                yield from fetched(batch)

    def compared(self, pieces: list, number: int) -> tuple[list[float], list[float], torch.Tensor | Filed]:
        """How far the `pieces` of latents of the group of that number end from the full runs, and the first one's picture.

        The distances, and the PSNR in dB, which nothing has where the latents themselves are judged.
        """
        found, decibels, shown = [], [], None
        for piece, reference in zip(pieces, self._references[number], strict=True):
            pictures = self.generator.decode(fetched(piece))
            if shown is None:
                shown = self.put_by(pictures[0].to("cpu", copy=not self._files))
            reference = fetched(reference)
            found += self.metric(pictures, reference).tolist()
            if not isinstance(self.generator, Latents):
                decibels += psnr(pictures, reference).tolist()
            del pictures, reference  # before the next ones are made
            if self._files:
                give_back()
        return found, decibels, shown


class Latents:
    """A generator whose pictures are its latents, for judging without a decoder; parts that are packed count alike.

    Of large latents the pictures are the sample that is recorded of them.
    """

    swaps = False

    def __init__(self, generator: Generator):
        self.noise, self.velocity, self.layout = generator.noise, generator.velocity, layout_of(generator)

    def decode(self, x):
        patches = sample_of(x.shape[1:], self.layout)
        layout, kept = (patches.kept, patches.of(x)) if patches else (self.layout, x)
        return layout.evened(kept) if layout else kept
