import os
import signal
import threading
from pathlib import Path

import pytest

from fluvial.training.interrupts import Interrupted, deferred_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_wait_and_handlers_come_back(signum: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with deferred_signals() as caught:
        assert caught.signum is None
        os.kill(os.getpid(), signum)
        assert caught.signum == signum
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught.signum == signum
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_hangup_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred_signals() as caught:
            os.kill(os.getpid(), signal.SIGHUP)
            assert caught.signum is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyError), deferred_signals():
        raise KeyError
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_set_no_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def body() -> None:
        with deferred_signals() as caught:
            seen.append((signal.getsignal(signal.SIGINT), caught.signum))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


def test_message_names_signal_step_and_checkpoint() -> None:
    error = Interrupted(signal.SIGTERM, 30, Path("runs/a/checkpoints/step-00000030"))
    assert str(error) == "stopped by SIGTERM at step 30; the state is in runs/a/checkpoints/step-00000030"
