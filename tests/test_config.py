"""Which values of settings are refused, before anything is started with them?"""

from __future__ import annotations

import pytest
from msgspec.structs import fields

from rdata.config import Settings
from rdata.exceptions import OptionError

NAMES = [setting.name for setting in fields(Settings)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e300", "", "ten"])
def test_a_value_out_of_range_is_refused(name: str, value: str) -> None:
    variable = f"RDATA_{name.upper()}"
    with pytest.raises(OptionError, match=rf"{variable}='{value}': give a .*number, .* to .*"):
        Settings.from_environment({variable: value})


@pytest.mark.parametrize("name", NAMES)
def test_a_default_is_in_its_range(name: str) -> None:
    default = getattr(Settings(), name)
    assert Settings.from_environment({f"RDATA_{name.upper()}": str(default)}) == Settings()


@pytest.mark.parametrize(
    "name", ["GENERATOR_BACKPRESSURE_NUM_OBJECTS", "STORE_FRACTION", "START_TIMEOUT_S"]
)
def test_with_zero_nothing_would_go_on(name: str) -> None:
    with pytest.raises(OptionError, match=f"RDATA_{name}='0'"):
        Settings.from_environment({f"RDATA_{name}": "0"})


def test_what_is_set_is_used() -> None:
    changed = Settings.from_environment({"RDATA_LEASE_IDLE_S": "5", "RDATA_BATCH_BYTES": "0"})
    assert (changed.lease_idle_s, changed.batch_bytes) == (5.0, 0)
    assert changed.store_fraction == Settings().store_fraction
