"""The parameters of the uppermost problem: encoder V, coefficients r and, if wanted, b."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mlo.errors import ConfigurationError, DataError
from problems.lfm.weights import example_weights, label_similarity, visual_similarity

CoefficientKey = Literal["example", "slot"]


class Validator(nn.Module):
    """What decides the weights: a_i = sigmoid( sum_j r_j x_ij(V) z_ij u_j ), and b_i.

    Args:
        encoder: Feature encoder V, from images to [n, F].
        coefficients: Number M of coefficients r: the validation examples with `keyed_by="example"`,
            the size of a validation batch with `keyed_by="slot"`.
        keyed_by: What a coefficient belongs to. A slot of a shuffled batch holds another example
            each time, so its coefficient can only learn an average; it is the form of the
            authors' code.
        temperature: T of the similarity.
        normalize: Compare features by their cosine.
        initial_coefficient: Start value of every r_j.
        stage1_weights: Number N of training examples, to learn the stage-1 weights b as well;
            None for plain cross-entropy in stage 1.
        initial_stage1_weight: Start value of every b_i.
        offset: c in a_i = sigmoid( c + sum_j ... ); 0 in the paper. With a negative c an example
            that resembles no mistake counts less than half.
        unit_mean: Divide the weights of a batch by their mean, so that they change what counts
            and not how fast is learned; not in the paper.

    Raises:
        ConfigurationError: If `keyed_by` is unknown or a number is not positive.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        coefficients: int,
        keyed_by: CoefficientKey = "example",
        temperature: float = 0.1,
        normalize: bool = True,
        initial_coefficient: float = 1.0,
        stage1_weights: int | None = None,
        initial_stage1_weight: float = 1.0,
        offset: float = 0.0,
        unit_mean: bool = False,
    ) -> None:
        super().__init__()
        _check_options(coefficients, keyed_by, temperature, stage1_weights)
        self.encoder = encoder
        self.coefficients = nn.Parameter(torch.full((coefficients,), initial_coefficient))
        self.stage1_weights = (
            None
            if stage1_weights is None
            else nn.Parameter(torch.full((stage1_weights,), initial_stage1_weight))
        )
        self.keyed_by = keyed_by
        self.temperature = temperature
        self.normalize = normalize
        self.offset = offset
        self.unit_mean = unit_mean

    def coefficients_of(self, index: Tensor) -> Tensor:
        """Pick the coefficients of a validation batch.

        Args:
            index: Position of each example in the validation set, [m].

        Returns:
            r_j, [m].

        Raises:
            DataError: If the batch has more slots than there are coefficients.
        """
        if self.keyed_by == "example":
            return self.coefficients[index]
        if len(index) > len(self.coefficients):
            raise DataError(
                f"index: expected at most {len(self.coefficients)} validation examples, one for "
                f"each coefficient, found {len(index)}. Raise `coefficients` to the batch size."
            )
        return self.coefficients[: len(index)]

    def stage1_weights_of(self, index: Tensor) -> Tensor:
        """Pick the stage-1 weights of a training batch.

        Args:
            index: Position of each example in the training set, [n].

        Returns:
            b_i, [n].

        Raises:
            ConfigurationError: If the validator was made without them.
        """
        if self.stage1_weights is None:
            raise ConfigurationError(
                "stage1_weights: expected the number of training examples, found None. "
                "Pass it to Validator, or train stage 1 with train_loss."
            )
        return self.stage1_weights[index]

    def stage1_parameters(self) -> list[nn.Parameter]:
        """The stage-1 weights b, if there are any."""
        return [] if self.stage1_weights is None else [self.stage1_weights]

    def forward(
        self,
        train: tuple[Tensor, Tensor, Tensor],
        valid: tuple[Tensor, Tensor, Tensor],
        u: Tensor,
    ) -> Tensor:
        """Weigh a training batch by a validation batch: `scaled` of `weights`."""
        return self.scaled(self.weights(train, valid, u))

    def scaled(self, a: Tensor) -> Tensor:
        """Divide weights that count together by their mean, where that is wanted."""
        return a / a.mean() if self.unit_mean else a

    def weights(
        self,
        train: tuple[Tensor, Tensor, Tensor],
        valid: tuple[Tensor, Tensor, Tensor],
        u: Tensor,
    ) -> Tensor:
        """Weigh training examples by a validation batch.

        Args:
            train: Images [n, ...], labels [n] and index [n].
            valid: Images [m, ...], labels [m] and index [m].
            u: Mistakes of the learner on the validation batch, [m].

        Returns:
            Weights a_i, [n].
        """
        x, z = self.similarity(train, valid)
        return example_weights(self.coefficients_of(valid[2]), x, z, u, offset=self.offset)

    def similarity(
        self, train: tuple[Tensor, Tensor, Tensor], valid: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compare a training with a validation batch: x_ij and z_ij, [n, m] both."""
        # Two calls, so that batch normalization sees each batch with its own statistics.
        x = visual_similarity(
            self.encoder(train[0]),
            self.encoder(valid[0]),
            temperature=self.temperature,
            normalize=self.normalize,
        )
        return x, label_similarity(train[1], valid[1])


def _check_options(
    coefficients: int, keyed_by: str, temperature: float, stage1_weights: int | None
) -> None:
    if keyed_by not in get_args(CoefficientKey):
        raise ConfigurationError(
            f"keyed_by: expected one of {get_args(CoefficientKey)}, found {keyed_by!r}. "
            "Use 'example' unless the authors' code is to be followed."
        )
    numbers = {
        "coefficients": coefficients,
        "temperature": temperature,
        "stage1_weights": 1 if stage1_weights is None else stage1_weights,
    }
    for name, number in numbers.items():
        if number <= 0:
            raise ConfigurationError(
                f"{name}: expected a positive number, found {number}. "
                "Counts are sizes of the data; the temperature divides the similarity."
            )
