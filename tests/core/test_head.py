"""Does the directory know every actor by name and place, from its creation to its end?"""

from __future__ import annotations

import pytest

from rdata.core import ids
from rdata.core.head import EndProcess, Head, Tell
from rdata.core.messages import ActorAt, CreateActor

DRIVER, ASKER, OTHER = b"driver__", b"asker___", b"other___"
WORKER, ADDRESS = b"worker__", "worker__@unix:/node"
ACTOR, ANOTHER = DRIVER + bytes(8), DRIVER + bytes(7) + b"\x01"


def request(
    actor: bytes = ACTOR, name: str = "", namespace: str = "", *, is_detached: bool = False
) -> CreateActor:
    return CreateActor(0, actor, ids.owner_of(actor), "", name, namespace, is_detached, b"")


@pytest.fixture
def head() -> Head:
    return Head()


def make(head: Head, made: CreateActor) -> None:
    """Let an actor come to life on WORKER."""
    assert head.create(made) == ""
    assert head.placed(made.actor, WORKER, ADDRESS) == []
    assert head.started(made.actor, "") == []


def death_of(head: Head, actor: bytes) -> str:
    (answer,) = head.locate(actor, ASKER)
    assert isinstance(answer, Tell)
    assert (answer.message.worker, answer.message.address) == (b"", "")
    return answer.message.death


# ---------------------------------------------------------------- places


def test_who_asks_is_told_once_the_constructor_has_returned(head: Head) -> None:
    head.create(request())
    assert head.locate(ACTOR, ASKER) == []
    head.placed(ACTOR, WORKER, ADDRESS)
    assert head.locate(ACTOR, OTHER) == []
    at = ActorAt(ACTOR, WORKER, ADDRESS, "")
    assert head.started(ACTOR, "") == [Tell(ASKER, at), Tell(OTHER, at)]
    assert head.locate(ACTOR, DRIVER) == [Tell(DRIVER, at)]


def test_a_question_may_come_before_the_actor(head: Head) -> None:
    assert head.locate(ACTOR, ASKER) == []
    make_it = request()
    head.create(make_it)
    head.placed(ACTOR, WORKER, ADDRESS)
    assert head.started(ACTOR, "") == [Tell(ASKER, ActorAt(ACTOR, WORKER, ADDRESS, ""))]


def test_who_asks_for_what_will_never_come_is_told_so(head: Head) -> None:
    assert head.locate(ACTOR, ASKER) == []
    (told,) = head.process_gone(DRIVER, "killed")
    assert told == Tell(ASKER, ActorAt(ACTOR, b"", "", "the process that created it has ended"))
    assert "has ended" in death_of(head, ANOTHER)


def test_a_constructor_that_raises_is_the_actors_end(head: Head) -> None:
    head.create(request(name="it"))
    head.locate(ACTOR, ASKER)
    head.placed(ACTOR, WORKER, ADDRESS)
    failure = "its constructor raised ValueError"
    assert head.started(ACTOR, failure) == [Tell(ASKER, ActorAt(ACTOR, b"", "", failure))]
    assert head.find("it", "") is None
    assert head.process_gone(WORKER, "done") == []
    assert death_of(head, ACTOR) == failure


# ---------------------------------------------------------------- names


def test_a_name_is_taken_from_creation_to_the_end(head: Head) -> None:
    make(head, request(name="it", namespace="here"))
    found = head.find("it", "here")
    assert found is not None
    assert found.actor == ACTOR
    refusal = head.create(request(ANOTHER, "it", "here"))
    assert "an actor named 'it' exists in namespace 'here'" in refusal
    assert "get_if_exists" in refusal
    assert head.find("it", "there") is None
    assert head.create(request(ANOTHER, "it", "there")) == ""
    head.process_gone(WORKER, "killed")
    assert head.find("it", "here") is None
    assert head.create(request(DRIVER + b"third___", "it", "here")) == ""


def test_a_killed_actors_name_is_free_while_its_process_ends(head: Head) -> None:
    make(head, request(name="it"))
    head.kill(ACTOR, "killed")
    assert head.find("it", "") is None
    assert head.create(request(ANOTHER, "it")) == ""
    again = Head()
    again.restore([entry for entry in head.take_changes().values() if entry is not None])
    for each in (head, again):
        each.process_gone(WORKER, "signal 9")
        found = each.find("it", "")
        assert found is not None
        assert found.actor == ANOTHER


def test_the_name_of_an_actor_that_is_to_end_is_free(head: Head) -> None:
    make(head, request(name="one"))
    head.free_name(ACTOR)
    assert head.find("one", "") is None
    assert head.create(request(ANOTHER, "one")) == ""
    head.process_gone(WORKER, "it had ended")
    found = head.find("one", "")
    assert found is not None
    assert found.actor == ANOTHER
    head.free_name(b"unknown_" + bytes(8))


def test_a_refused_actor_is_not_entered(head: Head) -> None:
    make(head, request(name="it"))
    head.create(request(ANOTHER, "it"))
    assert head.placed(ANOTHER, OTHER, "") == [EndProcess(OTHER, "the actor was ended")]
    found = head.find("it", "")
    assert found is not None
    assert found.actor == ACTOR


def test_actors_without_a_name_are_not_found_by_one(head: Head) -> None:
    head.create(request())
    head.create(request(ANOTHER))
    assert head.find("", "") is None


# ---------------------------------------------------------------- ends


def test_a_kill_before_the_actor_has_a_worker_ends_it_at_once(head: Head) -> None:
    head.create(request(name="it"))
    head.locate(ACTOR, ASKER)
    assert head.kill(ACTOR, "killed") == [Tell(ASKER, ActorAt(ACTOR, b"", "", "killed"))]
    assert head.find("it", "") is None
    assert death_of(head, ACTOR) == "killed"
    assert head.placed(ACTOR, WORKER, ADDRESS) == [EndProcess(WORKER, "killed")]
    assert head.started(ACTOR, "") == []
    assert head.process_gone(WORKER, "by order") == []


def test_a_kill_while_the_constructor_runs_ends_the_process(head: Head) -> None:
    head.create(request())
    head.locate(ACTOR, ASKER)
    head.placed(ACTOR, WORKER, ADDRESS)
    assert head.kill(ACTOR, "killed") == [EndProcess(WORKER, "killed")]
    told = head.process_gone(WORKER, "signal 9")
    assert told == [Tell(ASKER, ActorAt(ACTOR, b"", "", "killed"))]


def test_a_killed_actors_callers_read_why(head: Head) -> None:
    make(head, request())
    assert head.kill(ACTOR, "rdata.kill was called") == [
        EndProcess(WORKER, "rdata.kill was called")
    ]
    head.process_gone(WORKER, "signal 9")
    assert death_of(head, ACTOR) == "rdata.kill was called"
    assert head.kill(ACTOR, "again") == []


def test_a_process_that_ends_by_itself_says_how(head: Head) -> None:
    make(head, request())
    assert head.process_gone(WORKER, "exit code 3") == []
    assert death_of(head, ACTOR) == "exit code 3"


def test_actors_end_with_their_creator(head: Head) -> None:
    make(head, request())
    head.create(request(ANOTHER))
    head.locate(ANOTHER, ASKER)
    ended = head.process_gone(DRIVER, "it left")
    reason = "the process that created it has ended (it left)"
    assert ended == [
        EndProcess(WORKER, reason),
        Tell(ASKER, ActorAt(ANOTHER, b"", "", reason)),
    ]
    head.process_gone(WORKER, "signal 9")
    assert death_of(head, ACTOR) == reason


def test_a_detached_actor_outlives_its_creator(head: Head) -> None:
    head.create(request(name="it", is_detached=True))
    assert head.placed(ACTOR, WORKER, ADDRESS) == []
    assert head.started(ACTOR, "") == []
    assert head.process_gone(DRIVER, "it left") == []
    assert head.find("it", "") is not None
    assert head.locate(ACTOR, ASKER) == [Tell(ASKER, ActorAt(ACTOR, WORKER, ADDRESS, ""))]
    assert head.kill(ACTOR, "killed") == [EndProcess(WORKER, "killed")]


def test_a_detached_actor_that_was_never_placed_ends_with_its_creator(head: Head) -> None:
    head.create(request(name="it", is_detached=True))
    head.locate(ACTOR, ASKER)
    (told,) = head.process_gone(DRIVER, "it left")
    assert isinstance(told, Tell)
    assert "it left" in told.message.death
    assert head.find("it", "") is None
    assert head.placed(ACTOR, WORKER, ADDRESS) == [EndProcess(WORKER, told.message.death)]


def test_an_actor_that_created_actors_takes_them_along(head: Head) -> None:
    make(head, request())
    child = WORKER + bytes(8)
    head.create(request(child))
    head.placed(child, OTHER, "elsewhere")
    head.started(child, "")
    (ended,) = head.process_gone(WORKER, "signal 11")
    assert isinstance(ended, EndProcess)
    assert ended.process == OTHER
    assert "signal 11" in ended.reason


# ---------------------------------------------------------------- a head that is started anew

AT = "worker__@tcp:there:1"


def restored(*requests: CreateActor, worker: bytes = WORKER) -> Head:
    """A head that has read of these, the first of them on a worker."""
    before = Head()
    for number, made in enumerate(requests):
        before.create(made)
        if not number and worker:
            before.placed(made.actor, worker, AT)
            before.started(made.actor, "")
    after = Head()
    after.restore([entry for entry in before.take_changes().values() if entry is not None])
    return after


def test_changes_are_told_once_and_ends_as_such(head: Head) -> None:
    make(head, request(name="it"))
    head.create(request(ANOTHER))
    changes = head.take_changes()
    assert set(changes) == {ACTOR, ANOTHER}
    assert changes[ACTOR] is not None
    assert changes[ACTOR].is_started
    assert head.take_changes() == {}
    head.process_gone(WORKER, "killed")
    assert head.take_changes() == {ACTOR: None}


def test_what_was_read_is_found_at_once() -> None:
    head = restored(request(name="it", is_detached=True))
    assert head.find("it", "") is not None
    assert head.locate(ACTOR, ASKER) == [Tell(ASKER, ActorAt(ACTOR, WORKER, AT, ""))]
    assert "exists" in head.create(request(ANOTHER, name="it"))


def test_a_process_that_its_node_names_lives_on() -> None:
    head = restored(request(name="it", is_detached=True))
    assert head.process_seen(WORKER) == []
    assert head.node_seen("tcp:there:1") == []
    assert head.stop_waiting() == []
    assert head.find("it", "") is not None


def test_a_process_that_its_node_does_not_name_has_ended() -> None:
    head = restored(request(name="it", is_detached=True))
    assert head.node_seen("tcp:elsewhere:1") == []
    assert head.find("it", "") is not None
    head.node_seen("tcp:there:1")
    assert head.find("it", "") is None
    assert "while the head was away" in death_of(head, ACTOR)


def test_a_node_that_does_not_come_back_is_given_up() -> None:
    head = restored(request(name="it", is_detached=True))
    head.stop_waiting()
    assert head.find("it", "") is None


def test_an_actor_ends_with_an_owner_that_did_not_come_back() -> None:
    head = restored(request(name="it"))
    assert head.process_seen(WORKER) == []
    (ended,) = head.stop_waiting()
    assert isinstance(ended, EndProcess)
    assert ended.process == WORKER


def test_an_actor_that_was_to_end_is_ended_when_its_node_comes_back() -> None:
    head = restored(request(name="it"))
    head.process_gone(DRIVER, "it left")  # its node is not there to be told
    (ended,) = head.process_seen(WORKER)
    assert isinstance(ended, EndProcess)
    assert ended.process == WORKER


def test_a_creator_that_asks_again_is_not_refused() -> None:
    made = request(name="it")
    head = restored(made, worker=b"")
    assert head.create(made) == ""
    assert head.placed(ACTOR, WORKER, ADDRESS) == []
    assert head.started(ACTOR, "") == []
    assert head.locate(ACTOR, ASKER) == [Tell(ASKER, ActorAt(ACTOR, WORKER, ADDRESS, ""))]
