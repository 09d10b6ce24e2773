import signal
import threading

import pytest

from apparel_embed.common.interruption import Stopped, deferred, stopped_by_sigterm


@pytest.fixture(autouse=True)
def handlers():
    """Restores the handlers, and checks that the code under test restores them too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def test_sigterm_raises_an_exit_with_status_75():
    left = []
    with pytest.raises(Stopped) as caught, stopped_by_sigterm():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            left.append("block")

    assert caught.value.code == 75
    assert isinstance(caught.value, SystemExit)
    assert left == ["block"]


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_deferred_signal_waits_for_the_end_of_the_block(number, raised):
    done = []
    with pytest.raises(raised), stopped_by_sigterm():
        with deferred() as signals:
            assert not signals.requested
            signal.raise_signal(number)
            assert signals.requested
            done.append("step")
        done.append("not reached")

    assert done == ["step"]


def test_a_block_can_obey_a_deferred_signal_early():
    done = []
    with pytest.raises(Stopped), stopped_by_sigterm(), deferred() as signals:
        signal.raise_signal(signal.SIGTERM)
        done.append("saved")
        signals.obey()
        done.append("not reached")

    assert done == ["saved"]


def test_without_a_signal_nothing_happens():
    with deferred() as signals:
        signals.obey()
    assert not signals.requested


def test_a_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), deferred() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.requested
        signal.raise_signal(signal.SIGINT)
        pytest.fail("still waiting")


def test_the_first_of_two_signals_is_raised():
    with pytest.raises(Stopped), stopped_by_sigterm(), deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


def test_an_error_in_the_block_comes_before_the_signal():
    with pytest.raises(ZeroDivisionError), stopped_by_sigterm(), deferred():
        signal.raise_signal(signal.SIGTERM)
        _ = 1 / 0


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred() as signals:
            signal.raise_signal(signal.SIGINT)
            assert not signals.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_to_the_main_thread():
    seen = []

    def work():
        with deferred() as signals:
            seen.append(signals.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_signal_waiting_in_another_process_stops_this_one_too():
    with pytest.raises(Stopped), stopped_by_sigterm(), deferred() as signals:
        signals.request()
        assert signals.requested
        signals.obey()
        raise AssertionError("not reached")
