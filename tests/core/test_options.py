"""Which options are taken, and what is said of the others?"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from rdata.core.options import actor_options, amount, method_options, resource_amounts, task_options
from rdata.core.specs import ActorOptions, MethodOptions, TaskOptions
from rdata.errors import OptionError


def test_options_change_what_they_name_and_nothing_else() -> None:
    base = TaskOptions(num_cpus=2, name="base")
    changed = task_options(base, {"num_returns": "streaming", "resources": {"disk": 1}})
    assert changed == TaskOptions(
        num_cpus=2, name="base", num_returns="streaming", resources={"disk": 1.0}
    )
    assert base.num_returns == 1


def test_ray_spells_backpressure_with_an_underscore() -> None:
    for name in ("generator_backpressure_num_objects", "_generator_backpressure_num_objects"):
        assert task_options(TaskOptions(), {name: 3}).generator_backpressure_num_objects == 3


def test_exception_classes_may_be_a_list() -> None:
    options = task_options(TaskOptions(), {"retry_exceptions": [OSError, KeyError]})
    assert options.retry_exceptions == (OSError, KeyError)


@pytest.mark.parametrize(
    "harmless",
    [
        {"num_gpus": 0},
        {"num_gpus": None},
        {"memory": 0},
        {"runtime_env": {}},
        {"scheduling_strategy": "DEFAULT"},
        {"max_calls": 0},
        {"placement_group_bundle_index": -1},
        {"_metadata": {}},
        {"enable_task_events": True},
    ],
    ids=repr,
)
def test_rays_other_options_are_fine_where_they_change_nothing(harmless: dict[str, Any]) -> None:
    assert task_options(TaskOptions(), harmless) == TaskOptions()


@pytest.mark.parametrize(
    "absent",
    [
        {"num_gpus": 1},
        {"memory": 10**9},
        {"runtime_env": {"pip": ["phe"]}},
        {"scheduling_strategy": "SPREAD"},
        {"placement_group_bundle_index": 0},
        {"_metadata": {"a": 1}},
        {"enable_task_events": False},
    ],
    ids=repr,
)
def test_an_option_that_is_not_there_yet_says_so(absent: dict[str, Any]) -> None:
    (name,) = absent
    for refuse in (
        lambda: task_options(TaskOptions(), absent),
        lambda: actor_options(ActorOptions(), absent),
    ):
        with pytest.raises(OptionError, match=f"{name}=.* does not have this option of .* yet"):
            refuse()


def test_an_absent_or_unknown_option_is_a_type_error_too() -> None:
    for given in ({"num_gpus": 1}, {"numcpus": 1}):
        with pytest.raises(TypeError):
            task_options(TaskOptions(), given)


@pytest.mark.parametrize("name", ["max_restarts", "max_task_retries"])
def test_restarts_are_not_there_yet(name: str) -> None:
    assert actor_options(ActorOptions(), {name: 0}) == ActorOptions()
    with pytest.raises(OptionError, match="yet"):
        actor_options(ActorOptions(), {name: 1})


def test_concurrency_is_not_there_yet() -> None:
    assert actor_options(ActorOptions(), {"max_concurrency": 1}) == ActorOptions()
    with pytest.raises(OptionError, match="yet"):
        actor_options(ActorOptions(), {"max_concurrency": 2})


def test_an_unknown_option_gets_a_suggestion_or_the_list() -> None:
    with pytest.raises(OptionError, match="did you mean 'num_cpus'"):
        task_options(TaskOptions(), {"numcpus": 1})
    with pytest.raises(OptionError, match="there are: num_cpus, name, namespace, lifetime"):
        actor_options(ActorOptions(), {"zzz": 1})
    with pytest.raises(OptionError, match="not an option of an actor's method"):
        method_options(MethodOptions(), {"num_cpus": 1})


def test_options_of_another_kind_are_unknown() -> None:
    with pytest.raises(OptionError):
        task_options(TaskOptions(), {"lifetime": "detached"})
    with pytest.raises(OptionError):
        actor_options(ActorOptions(), {"num_returns": 2})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_cpus", -1),
        ("num_cpus", True),
        ("num_cpus", float("inf")),
        ("num_cpus", float("nan")),
        ("num_returns", -1),
        ("num_returns", 1.0),
        ("num_returns", "dynamic"),
        ("num_returns", True),
        ("max_retries", -2),
        ("retry_exceptions", OSError),
        ("retry_exceptions", []),
        ("retry_exceptions", [1]),
        ("name", 5),
        ("num_cpus", 10**400),
        ("num_cpus", 1e-9),
        ("num_cpus", np.True_),
        ("num_returns", 10**400),
        ("name", "\ud800"),
        ("resources", {"CPU": 1}),
        ("resources", {"GPU": 1}),
        ("resources", {"object_store_memory": 1}),
        ("resources", {"\ud800": 1}),
        ("resources", {"disk": "1"}),
        ("resources", 3),
        ("resources", {1: 1}),
        ("resources", {"": 1}),
        ("resources", {"disk": float("inf")}),
        ("generator_backpressure_num_objects", 0),
    ],
)
def test_a_task_option_that_cannot_be_meant(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        task_options(TaskOptions(), {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("name", ""), ("namespace", 1), ("lifetime", "forever"), ("get_if_exists", 1)],
)
def test_an_actor_option_that_cannot_be_meant(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        actor_options(ActorOptions(), {name: value})


def test_none_leaves_an_option_as_it_is() -> None:
    given = {"num_cpus": 2, "num_returns": 3, "max_retries": 4, "name": "n"}
    for base in (TaskOptions(), task_options(TaskOptions(), given)):
        assert task_options(base, dict.fromkeys(given)) == base
    named = MethodOptions(name="A.m", num_returns=2)
    assert method_options(named, {"name": None, "num_returns": None}) == named


def test_lifetimes() -> None:
    assert actor_options(ActorOptions(), {"lifetime": "detached"}).lifetime == "detached"
    assert actor_options(ActorOptions(), {"lifetime": "non_detached"}).lifetime is None


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3)], ids=repr)
def test_a_whole_number_may_be_of_any_type_that_stands_for_one(three: Any) -> None:
    given = dict.fromkeys(("num_returns", "max_retries", "generator_backpressure_num_objects"), 3)
    names = [*given, "num_cpus"]
    options = task_options(TaskOptions(), dict.fromkeys(names, three))
    assert options == TaskOptions(num_cpus=3.0, **given)
    assert {type(getattr(options, name)) for name in given} == {int}
    assert type(options.num_cpus) is float


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)], ids=repr)
def test_an_amount_may_be_of_any_type_that_stands_for_a_number(half: Any) -> None:
    assert repr(amount("num_cpus", half)) == "0.5"
    assert repr(resource_amounts("resources", {"disk": half})) == "{'disk': 0.5}"


def test_amounts_become_floats() -> None:
    assert repr(amount("num_cpus", 2)) == "2.0"
    assert resource_amounts("resources", None) == {}
    with pytest.raises(OptionError, match="num_cpus"):
        amount("num_cpus", float("nan"))
