"""A mixture of Gaussians that is fitted once and lives in a checkpoint (VGAN, Section 3.2).

Legend: b draws, n codes, k components, d dimensions of a code.
"""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor, nn

LEAST_CODES = 10  # a component; of fewer, components would only repeat single codes
MAX_ITERATIONS = 50
MOMENTUM = 0.1  # of the running normal, as batch norm's
_log = logging.getLogger(__name__)


class Mixture(nn.Module):
    """p(code) = sum_k weight_k N(mean_k, factor_k factor_k^T), in buffers of fixed shape.

    weight_k (K,) float64, sums to 1; mean_kd (K, D) and the lower Cholesky factors factor_kdd
    (K, D, D), float32. Before `fit`, component 0 is all of it: the running normal of the codes.
    """

    weight_k: Tensor
    mean_kd: Tensor
    factor_kdd: Tensor

    def __init__(self, components: int, dimensions: int) -> None:
        super().__init__()
        weight_k = torch.zeros(components, dtype=torch.float64)
        weight_k[0] = 1
        self.register_buffer("weight_k", weight_k)
        self.register_buffer("mean_kd", torch.zeros(components, dimensions))
        self.register_buffer("factor_kdd", torch.eye(dimensions).repeat(components, 1, 1))

    @torch.no_grad()
    def follow(self, code_bd: Tensor) -> None:
        """Moves component 0 towards the mean and variances of these codes; all weight is its own.

        What was fitted is given up: training goes on, and the codes with it.
        """
        code_bd = code_bd.float()
        variance_d = self.factor_kdd[0].square().sum(1)
        variance_d.lerp_(code_bd.var(0, correction=0), MOMENTUM)
        self.mean_kd[0].lerp_(code_bd.mean(0), MOMENTUM)
        self.factor_kdd[0] = variance_d.sqrt().diag()
        self.weight_k.zero_()
        self.weight_k[0] = 1

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 1 + D) float32 on the CPU: a uniform that chooses, and normals."""
        chooses = torch.rand(count, 1, generator=generator)
        normals = torch.randn(count, self.mean_kd.shape[1], generator=generator)
        return torch.cat([chooses, normals], 1)

    def draw(self, noise: Tensor) -> Tensor:
        """(B, D) codes, each a function of its row of `noise` alone."""
        cumulative_k = self.weight_k.cumsum(0)
        chosen_b = torch.searchsorted(
            cumulative_k, noise[:, 0].double() * cumulative_k[-1], right=True
        )
        scaled_bd1 = self.factor_kdd[chosen_b] @ noise[:, 1:, None]
        return self.mean_kd[chosen_b] + scaled_bd1[:, :, 0]

    @torch.no_grad()
    def fit(self, code_nd: Tensor, seed: int) -> None:
        """Expectation maximisation by scikit-learn, full covariances, a function of codes and seed.

        With fewer than 10 codes a component it takes as many components as have 10, at least one,
        and says so in the log. Raises ValueError for fewer than 2 codes.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        if len(code_nd) < 2:
            raise ValueError(f"{len(code_nd)} code(s): a mixture needs at least 2 clips")
        most = len(self.weight_k)
        count = min(most, max(1, len(code_nd) // LEAST_CODES))
        if count < most:
            _log.warning(
                "%d codes are few: %d components are fitted, not %d", len(code_nd), count, most
            )
        model = GaussianMixture(count, max_iter=MAX_ITERATIONS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(code_nd.double().cpu().numpy())
        if not model.converged_:
            _log.warning("the mixture did not converge in %d iterations", MAX_ITERATIONS)
        self.weight_k.zero_()
        self.weight_k[:count] = torch.from_numpy(model.weights_)
        self.mean_kd[:count] = torch.from_numpy(model.means_).float()
        covariance_kdd = torch.from_numpy(model.covariances_)
        self.factor_kdd[:count] = torch.linalg.cholesky(covariance_kdd).float()
