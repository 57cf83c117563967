"""Makes torch believe that it was built with CUDA and that the emulated devices are there."""

from __future__ import annotations

import datetime
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .build import NAME

CAPABILITY = (9, 0)
TOTAL = 8 << 30
"""Bytes of each device, as it says itself."""


def install(module: Path, count: int) -> None:
    """Give this process devices, for as long as it lives.

    Args:
        module: what `build` has made.
        count: how many.
    """
    assert "torch" not in sys.modules, "torch looks for devices when it is imported"
    device = _load(module)
    device.set_device_count(count)
    _install_functions(device, count)
    _install_streams(device)
    _install_storage(device)
    _install_nccl(device)
    _install_attention(device)


def _load(module: Path) -> Any:
    spec = importlib.util.spec_from_file_location(NAME, module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def _replace(owner: object, **names: Any) -> None:
    for name, value in names.items():
        setattr(owner, name, value)


def _install_functions(device: Any, count: int) -> None:
    """What torch's Python calls of its part for CUDA, and the functions that ask the driver."""
    import torch

    def exchange(index: int) -> int:
        was: int = device.current_device()
        device.set_current_device(index)
        return was

    def statistics(_device: int) -> dict[str, Any]:
        used, peak = device.memory()
        kinds = ("allocated_bytes", "reserved_bytes", "active_bytes", "requested_bytes")
        return {kind: {"all": {"current": used, "peak": peak}} for kind in kinds}

    def properties(_device: object = None) -> SimpleNamespace:
        major, minor = CAPABILITY
        return SimpleNamespace(
            name="emulated", major=major, minor=minor, total_memory=TOTAL, multi_processor_count=1
        )

    def free_and_total(_device: object = None) -> tuple[int, int]:
        return TOTAL - device.memory()[0], TOTAL

    _replace(
        torch._C,
        _cuda_init=lambda: None,
        _cuda_getDeviceCount=lambda: count,
        _cuda_getDevice=device.current_device,
        _cuda_setDevice=device.set_current_device,
        _cuda_exchangeDevice=exchange,
        _cuda_maybeExchangeDevice=exchange,
        _cuda_synchronize=lambda: device.wait("torch.cuda.synchronize"),
        _cuda_memoryStats=statistics,
        _cuda_resetPeakMemoryStats=lambda _: device.reset_peak(),
        _cuda_emptyCache=lambda: None,
        _cuda_isInBadFork=lambda: False,
        _cuda_getArchFlags=lambda: "sm_90",
        _cuda_getCurrentRawStream=lambda _: 0,
        _cuda_getCompiledVersion=lambda: 12080,
    )
    _replace(
        torch.cuda,
        _exchange_device=exchange,
        _maybe_exchange_device=exchange,
        _is_in_bad_fork=lambda: False,
        _cached_device_count=count,
        _cudart=SimpleNamespace(),
        default_generators=tuple(device.default_generator(index) for index in range(count)),
        get_device_properties=properties,
        _get_device_properties=properties,
        get_device_name=lambda _=None: "emulated",
        get_device_capability=lambda _=None: CAPABILITY,
        mem_get_info=free_and_total,
        is_current_stream_capturing=lambda: False,
    )


def _install_streams(device: Any) -> None:
    import torch

    class Stream(torch.Stream):
        def __new__(cls, device_: Any = None, priority: int = 0, **names: Any) -> Any:
            if "stream_id" not in names:
                chosen = names.pop("device", device_)
                index = torch.cuda._utils._get_device_index(chosen, optional=True)
                names = {"device": torch.device("cuda", index), "priority": priority}
            return super().__new__(cls, **names)

        def wait_event(self, event: Any) -> None:
            pass

        def wait_stream(self, stream: Any) -> None:
            pass

        def record_event(self, event: Any = None) -> Any:
            event = event or Event()
            event.record(self)
            return event

    class Event(torch.Event):
        def __new__(cls, enable_timing: bool = False, blocking: bool = False, **_: Any) -> Any:
            return super().__new__(cls, "cuda", enable_timing=enable_timing, blocking=blocking)

        def wait(self, stream: Any = None) -> None:
            pass

    for owner in (torch.cuda, torch.cuda.streams):
        _replace(owner, Stream=Stream, Event=Event)
    _replace(
        torch.cuda,
        current_stream=lambda device=None: torch.accelerator.current_stream(device),
        default_stream=lambda _=None: torch.Stream(
            stream_id=0, device_index=device.current_device(), device_type=1
        ),
        set_stream=torch.accelerator.set_stream,
    )


def _install_storage(device: Any) -> None:
    import torch

    resize = torch.UntypedStorage.resize_

    def resize_anywhere(self: Any, size: int) -> Any:
        if self.device.type != "cuda":
            return resize(self, size)
        device.resize(self, size)
        return self

    _replace(torch.UntypedStorage, resize_=resize_anywhere)


def _install_nccl(device: Any) -> None:
    import torch
    from torch.distributed import distributed_c10d as c10d

    compiled = torch._C._distributed_c10d

    class IsNccl(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, compiled.Backend) and instance.name() == "nccl"

    class ProcessGroupNCCL(metaclass=IsNccl):
        class Options:
            def __init__(self, is_high_priority_stream: bool = False) -> None:
                self.is_high_priority_stream = is_high_priority_stream
                self.config = SimpleNamespace()

        def __new__(cls, store: Any, rank: int, size: int, options: Any) -> Any:
            gloo = compiled.ProcessGroupGloo(store, rank, size, timeout=options._timeout)
            return device.nccl_over(gloo)

    _replace(
        c10d,
        ProcessGroupNCCL=ProcessGroupNCCL,
        _NCCL_AVAILABLE=True,
        default_pg_nccl_timeout=datetime.timedelta(minutes=10),
    )
    _replace(torch.distributed, ProcessGroupNCCL=ProcessGroupNCCL)
    _replace(compiled, ProcessGroupNCCL=ProcessGroupNCCL)
    _replace(compiled.Backend, _set_default_timeout=lambda *_: None)


_libraries: list[Any] = []  # what is registered is there for as long as its library is


def _install_attention(device: Any) -> None:
    import torch

    from ..trainer.gpu_stand_in import flash_backward, flash_forward

    def on_host(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> tuple[Any, ...]:
            given = (*args, *options.values())
            assert all(x.is_cuda for x in given if isinstance(x, torch.Tensor)), "on the host"
            moved = [device.on_host(x) if isinstance(x, torch.Tensor) else x for x in given]
            named = dict(zip(options, moved[len(args) :], strict=True))
            return tuple(map(device.on_device, function(*moved[: len(args)], **named)))

        return call

    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", on_host(flash_forward), "CUDA")
    library.impl("_flash_attention_backward", on_host(flash_backward), "CUDA")
    _libraries.append(library)
