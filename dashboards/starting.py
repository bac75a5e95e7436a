"""What pages that start work have in common: case files near the runs, the flags that say how, a folder that may be."""

from pathlib import Path, PurePosixPath

import streamlit as st

from dashboards.bar import View

BACKENDS, DTYPES = ("native", "transformer_lens", "nnsight"), ("float32", "bfloat16", "float16")
MOST = 50


def cases(view: View) -> list[str]:
    """Case files near the runs, offered for a start."""
    places = [Path.cwd(), view.vault.root, view.vault.root.parent]
    files = [p for place in places for p in (*sorted(place.glob("*.toml")), *sorted(place.glob("*/case.toml")))]
    return list(dict.fromkeys(str(p.resolve()) for p in files if "case" in p.name))[:MOST]


def case_box(view: View, key: str = "case") -> str:
    """Which case file; empty where none is named. ``key`` is its name in the address, one of each page's own."""
    offered = cases(view)
    return st.selectbox("Case file", offered, index=0 if offered else None, accept_new_options=True, key=key,
                        bind="query-params", placeholder="path of a case.toml") or ""  # fmt: skip


def setting_flags() -> list[str]:
    """The flags that say how, never what."""
    first, second, third, fourth = st.columns(4)
    backend = first.selectbox("Backend", BACKENDS, key="backend")
    dtype = second.selectbox("Numbers", DTYPES, key="dtype")
    device = third.text_input("Device", "cpu", key="device")
    threads = fourth.number_input("Threads", 1, 256, 1, key="threads")
    return ["--backend", backend, "--dtype", dtype, "--device", device, "--threads", str(threads)]


def is_below(out: str) -> bool:
    """Is this the name of a folder below the folder of runs?"""
    path = PurePosixPath(out)
    plain = bool(out) and out == path.as_posix() and "\0" not in out
    return plain and ".." not in path.parts and not path.is_absolute()
