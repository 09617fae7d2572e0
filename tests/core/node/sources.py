"""Which classes do programs and notebooks define here, and what must hold of them?"""

from __future__ import annotations

MINE = """
class Mine:
    def __init__(self, value):
        self.value = value
    def __eq__(self, other):
        return type(other) is Mine and other.value == self.value
    def __hash__(self):
        return hash(self.value)

class Slotted:
    __slots__ = ("__hidden", "value")
    def __init__(self, value):
        self.value = self.__hidden = value
    def hidden(self):
        return self.__hidden

class MyError(Exception):
    def __init__(self, mine, *, hint):
        super().__init__(mine)
        self.hint = hint
"""
CHECK_MINE = """
@rdata.remote
def double(mine):
    assert type(mine) is Mine, type(mine)
    return Mine(mine.value * 2)

@rdata.remote
def fail(mine):
    raise MyError(mine, hint="look")

@rdata.remote
class Keeper:
    def __init__(self, mine):
        self.mine = mine
    def get(self):
        return self.mine
    def fail(self):
        raise MyError(self.mine, hint="look there")

@rdata.remote
def again(slotted):
    assert not hasattr(slotted, "__dict__")
    return Slotted(slotted.value + slotted.hidden())

slotted = rdata.get(again.remote(Slotted(4)))
assert type(slotted) is Slotted and (slotted.value, slotted.hidden()) == (8, 8)

result = rdata.get(double.remote(Mine(4)))
assert type(result) is Mine
assert result == Mine(8)
assert rdata.get(double.remote(rdata.put(Mine(1)))) == Mine(2)
assert type(rdata.get(Keeper.remote(Mine(3)).get.remote())) is Mine
assert rdata.get([double.remote(Mine(i)) for i in range(50)]) == [Mine(2 * i) for i in range(50)]
try:
    rdata.get(fail.remote(Mine(5)))
except MyError as error:
    assert error.args == (Mine(5),)
    assert error.hint == "look"
else:
    raise AssertionError("nothing raised")
try:
    rdata.get(Keeper.remote(Mine(6)).fail.remote())
except MyError as error:
    assert (error.args, error.hint) == ((Mine(6),), "look there")
else:
    raise AssertionError("nothing raised")
"""
