"""Models with tensors of PyTorch."""

import numpy as np
import pytest

import invokerpool as ip

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def test_tensors_on_the_cpu_are_shared_and_stay_what_they_are(tmp_path):
    weights = torch.arange(100_000, dtype=torch.float32).reshape(100, 1000)
    layer = torch.nn.Linear(300, 50)
    model = {
        "weights": weights,
        "turned": weights.t(),
        "row": weights[7],
        "half": torch.ones(5000, dtype=torch.bfloat16),
        "flags": torch.ones(9000, dtype=torch.bool),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.full((3000,), 2.0)),
        "layer": layer,
        "array": np.arange(3000.0),
    }
    image = ip.share(model)
    # The large storages and the array, each once.
    assert len(image.tensors()) == 6, image.tensors()
    image.save(tmp_path / "model.safetensors")
    for found in (image.unpickle(), ip.load(tmp_path / "model.safetensors").unpickle()):
        for name in ("weights", "turned", "row", "half", "flags", "empty", "parameter"):
            assert torch.equal(found[name], model[name]), name
            assert found[name].dtype == model[name].dtype and found[name].stride() == model[name].stride()
        assert isinstance(found["parameter"], torch.nn.Parameter) and found["parameter"].requires_grad
        found["weights"][7, 0] = -1
        assert found["row"][0] == -1 and found["turned"][0, 7] == -1, "they share their memory"
    assert weights[7, 0] == 7000, "writes stay private"


def test_workers_run_a_network_on_shared_tensors():
    network = torch.nn.Sequential(torch.nn.Linear(200, 300), torch.nn.ReLU(), torch.nn.Linear(300, 1))

    def op(network, seed):
        inputs = torch.linspace(0, seed, 200)
        with torch.no_grad():
            return float(network(inputs))

    for writable in (True, False):
        with ip.Pool(network, op, workers=2, writable=writable) as pool:
            assert list(pool.map(range(10))) == [op(network, seed) for seed in range(10)]
