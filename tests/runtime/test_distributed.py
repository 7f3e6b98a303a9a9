"""The process of a training: alone it needs no group, and one whose peer ended says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import torch
from torch import distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from mult.errors import UserError
from mult.runtime import distributed


def test_one_process_needs_no_group() -> None:
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    amount = torch.tensor([1.5, 2.0])
    assert distributed.all_reduce_sum(amount).tolist() == [1.5, 2.0]
    distributed.start(torch.device("cpu"))
    distributed.barrier()
    distributed.stop()
    assert not torch.distributed.is_initialized()


@pytest.fixture
def two_processes() -> Iterator[None]:
    """This process is the first of two, of which the other one does not exist: torch's fake group sends nothing."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("two_processes")
def test_a_process_whose_peer_ended_stops_with_a_message() -> None:
    with (
        pytest.raises(SystemExit, match=r"^stopped: another process ended; its output says why$"),
        distributed.process_group(torch.device("cpu")),
    ):
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:51530")


@pytest.mark.usefixtures("two_processes")
def test_another_error_of_one_of_two_processes_is_not_taken_for_a_lost_peer() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), distributed.process_group(torch.device("cpu")):
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:99", r" \(.*\); expected auto, cpu or a device of this machine; take auto, or see to the device"),
        ("gpu", "; expected auto, cpu, cuda, or cuda:N for one of several GPUs; did you mean 'cpu'"),
        ("cpuu", "; expected auto, cpu, cuda, or cuda:N for one of several GPUs; did you mean 'cpu'"),
        ("tpu:x", "; expected auto, cpu, cuda, or cuda:N for one of several GPUs; take auto"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"run\.device: got '{name}'{message}"):
        distributed.pick_device(name)
    assert distributed.pick_device("cpu") == torch.device("cpu")


def test_a_scheduler_may_show_each_process_its_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here, so that the device that would be taken is in the message."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    for visible, taken in ((1, "cuda:0"), (8, "cuda:3")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda visible=visible: visible)
        with pytest.raises(UserError, match=f"run.device: got '{taken}'"):
            distributed.pick_device("auto")


@pytest.mark.parametrize("name", ["mps", "mps:0"])
def test_mps_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"run.device: got {name}; expected auto, cpu or cuda: .* float64, which mps lacks"):
        distributed.pick_device(name)


def test_a_port_in_use_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match=f"MASTER_PORT: got {port}, which another process uses; expected a free port"):
            distributed.start(torch.device("cpu"))
    assert not dist.is_initialized()
