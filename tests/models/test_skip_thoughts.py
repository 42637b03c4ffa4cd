"""Skip-thoughts against a gated unit written number by number, from files as published."""

import numpy as np
import pytest
import torch

from models.skip_thoughts import SkipThoughts

WORDS = ["UNK", "digit", "is", "moving", "up", "."]
D, ONE, TWO = 3, 4, 2


def _encoder(rng, prefix, hidden):
    shapes = {"W": (D, 2 * hidden), "b": (2 * hidden,), "U": (hidden, 2 * hidden)}
    shapes |= {"Wx": (D, hidden), "bx": (hidden,), "Ux": (hidden, hidden)}
    return {f"{prefix}_{name}": rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.fixture
def published(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "uni_skip.npz", **_encoder(rng, "encoder", ONE))
    both = _encoder(rng, "encoder", TWO) | _encoder(rng, "encoder_r", TWO)
    np.savez(tmp_path / "bi_skip.npz", **both)
    (tmp_path / "dictionary.txt").write_text("\n".join(WORDS) + "\n")
    for name in ("utable", "btable"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(len(WORDS), D)).astype(np.float32))
    return tmp_path


def _gru(found, prefix, vectors):
    """h behind the last vector, by loops."""
    w = {name: found[f"{prefix}_{name}"] for name in ("W", "b", "U", "Wx", "bx", "Ux")}
    hidden = len(w["Ux"])
    h = [0.0] * hidden
    for x in vectors:
        gate = []
        for k in range(2 * hidden):
            total = w["b"][k] + sum(x[d] * w["W"][d, k] for d in range(D))
            total += sum(h[j] * w["U"][j, k] for j in range(hidden))
            gate.append(1 / (1 + np.exp(-total)))
        new = []
        for k in range(hidden):
            before = gate[k] * sum(h[j] * w["Ux"][j, k] for j in range(hidden))
            total = before + w["bx"][k] + sum(x[d] * w["Wx"][d, k] for d in range(D))
            new.append(np.tanh(total))
        h = [gate[hidden + k] * h[k] + (1 - gate[hidden + k]) * new[k] for k in range(hidden)]
    return np.array(h)


def test_sentence_is_both_encoders_last_states_each_of_unit_length(published):
    thoughts = SkipThoughts(str(published))
    assert thoughts.size == ONE + 2 * TWO
    found = thoughts.encode(["digit is moving up.", "up"])
    one, two = (np.load(published / f"{name}.npy") for name in ("utable", "btable"))
    uni, bi = (np.load(published / f"{name}_skip.npz") for name in ("uni", "bi"))
    places = [WORDS.index(word) for word in ("digit", "is", "moving", "up", ".")]
    h = _gru(uni, "encoder", one[places])
    b = np.concatenate([_gru(bi, "encoder", two[places]), _gru(bi, "encoder_r", two[places[::-1]])])
    expected = np.concatenate([h / np.linalg.norm(h), b / np.linalg.norm(b)])
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32
    assert not torch.equal(found[0], found[1])


def test_unknown_word_is_the_published_unknown_one(published):
    thoughts = SkipThoughts(str(published))
    torch.testing.assert_close(thoughts.encode(["sideways"]), thoughts.encode(["UNK"]))
    with pytest.raises(ValueError, match="has no words"):
        thoughts.encode(["  "])


def test_files_that_do_not_fit_are_named(published):
    with pytest.raises(ValueError, match=r"uni_skip.npz: cannot be read"):
        SkipThoughts(str(published / "nowhere"))
    np.save(published / "utable.npy", np.zeros((2, D + 1), np.float32))
    with pytest.raises(ValueError, match=r"utable.npy: an array of \(2, 4\)"):
        SkipThoughts(str(published))
    np.save(published / "utable.npy", np.array([{"digit": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"utable.npy: not plain arrays"):
        SkipThoughts(str(published))
    np.savez(published / "uni_skip.npz", encoder_W=np.zeros((D, 8)))
    with pytest.raises(ValueError, match="not skip-thoughts' published weights"):
        SkipThoughts(str(published))
