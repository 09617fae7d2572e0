"""Is an object freed when, and only when, nobody holds it, whatever happens in whatever order?"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.processes import Cluster, Process, Ref

MAX_PROCESSES = 4
MAX_KILLED = 3
MAX_REFS = 6  # a program; more make the same bugs harder to find


class Ownership(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.num_killed = 0

    @initialize(count=st.integers(2, MAX_PROCESSES))
    def start(self, count: int) -> None:
        for _ in range(count):
            self.cluster.start()

    # ------------------------------------------------------------ what programs do

    def living(self) -> list[Process]:
        return list(self.cluster.processes.values())

    def with_refs(self) -> list[Process]:
        return [process for process in self.living() if process.refs]

    def some_refs(self, data: st.DataObject, process: Process, max_size: int = 3) -> list[Ref]:
        if not process.refs:
            return []
        return data.draw(st.lists(st.sampled_from(process.refs), max_size=max_size))

    @precondition(lambda self: any(len(p.refs) < MAX_REFS for p in self.living()))
    @rule(data=st.data(), is_stored=st.booleans())
    def put(self, data: st.DataObject, is_stored: bool) -> None:
        process = data.draw(st.sampled_from([p for p in self.living() if len(p.refs) < MAX_REFS]))
        process.put(self.some_refs(data, process, 2), is_stored)

    @precondition(with_refs)
    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.with_refs()))
        process.get(data.draw(st.sampled_from(process.refs)))

    @precondition(with_refs)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.with_refs()))
        process.drop(data.draw(st.sampled_from(process.refs)))

    @precondition(lambda self: len(self.living()) > 1)
    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.living()))
        workers = [id for id in self.cluster.processes if id not in {process.id, *process.gone}]
        if workers:
            worker = data.draw(st.sampled_from(workers))
            nested, slots = self.some_refs(data, process), self.some_refs(data, process, 1)
            process.submit(worker, nested, slots)

    @precondition(lambda self: any(p.inbox for p in self.living()))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([p for p in self.living() if p.inbox]))
        process.begin(data.draw(st.sampled_from(process.inbox)))

    @precondition(lambda self: any(p.running for p in self.living()))
    @rule(data=st.data(), is_stored=st.booleans(), keeps_all=st.booleans())
    def end(self, data: st.DataObject, is_stored: bool, keeps_all: bool) -> None:
        process = data.draw(st.sampled_from([p for p in self.living() if p.running]))
        run = data.draw(st.sampled_from(process.running))
        result = self.some_refs(data, process)
        droppable = [ref for ref in run.adopted if process.refs.count(ref) >= run.adopted.count(ref)]
        process.end(run, result, [] if keeps_all else droppable, is_stored)

    @precondition(lambda self: len(self.living()) > 1 and self.num_killed < MAX_KILLED)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        victim = data.draw(st.sampled_from(sorted(self.cluster.processes)))
        self.num_killed += 1
        self.cluster.kill(victim, lambda count: data.draw(st.integers(0, count)))

    @precondition(lambda self: len(self.living()) < MAX_PROCESSES)
    @rule()
    def start_another(self) -> None:
        self.cluster.start()

    # ------------------------------------------------------------ what the network does

    @precondition(lambda self: self.cluster.channels)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        self.cluster.deliver(data.draw(st.sampled_from(sorted(self.cluster.channels))))

    @precondition(lambda self: self.cluster.channels)
    @rule(data=st.data())
    def deliver_all_of_one(self, data: st.DataObject) -> None:
        channel = data.draw(st.sampled_from(sorted(self.cluster.channels)))
        while channel in self.cluster.channels:
            self.cluster.deliver(channel)

    @precondition(lambda self: self.cluster.notices)
    @rule(data=st.data())
    def tell_of_end(self, data: st.DataObject) -> None:
        self.cluster.deliver_notice(data.draw(st.sampled_from(sorted(self.cluster.notices))))

    # ------------------------------------------------------------ always

    @invariant()
    def what_is_held_is_there(self) -> None:
        for process in self.living():
            for object_id in process.holds():
                assert process.knows(object_id)
                owner = self.cluster.processes.get(self.cluster.known[object_id])
                if owner is not None and object_id not in self.cluster.at_risk:
                    assert owner.knows(object_id), "freed, although somebody holds it"
        assert not [id for id, count in self.cluster.freed.items() if count > 1]

    def settle(self) -> None:
        """Everything arrives, and all tasks end."""
        is_quiet = False
        while not is_quiet:
            is_quiet = True
            while self.cluster.channels:
                self.cluster.deliver(next(iter(self.cluster.channels)))
                is_quiet = False
            for notice in sorted(self.cluster.notices):
                self.cluster.deliver_notice(notice)
                is_quiet = False
            for process in self.living():
                for run in list(process.inbox):
                    process.begin(run)
                    is_quiet = False
                for run in list(process.running):
                    process.end(run, [], [], is_stored=False)
                    is_quiet = False

    def teardown(self) -> None:
        """What is held is held by name, and once nothing is, nothing is left."""
        self.settle()
        for process in self.living():
            assert not process.tasks, "a task waits for ever"
            assert not process.kept, "a reply waits for ever"
            assert not process.in_transit, "a result is held for ever"
            assert not process.loads, "an outer object is held for ever"
            for object_id, owner in self.cluster.known.items():
                is_held = object_id in process.holds()
                if owner == process.id:
                    is_held = bool(self.cluster.holders(object_id))
                assert process.knows(object_id) == is_held
        for process in self.living():
            for ref in list(process.refs):
                process.drop(ref)
        self.settle()
        for process in self.living():
            assert process.table.is_idle()
            for object_id in self.cluster.known:
                assert not process.knows(object_id)
        assert not [id for id, count in self.cluster.freed.items() if count > 1]


TestOwnership = Ownership.TestCase
TestOwnership.settings = settings(max_examples=150, stateful_step_count=50)
