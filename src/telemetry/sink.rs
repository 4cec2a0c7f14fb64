//! Where log lines and spans go: a buffer that a thread of its own writes out.
//!
//! A request only copies its line into memory. The thread lets them gather for a while before it writes them: woken
//! by each it would cost more than everything else about logs. If the reader of the output is slower than the program
//! for so long that [`BUFFER_MAX`] fills up, what comes is dropped and counted: logs never stop the money.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::Counter;

/// Most bytes that wait to be written.
const BUFFER_MAX: usize = 8 * 1024 * 1024;

/// So many bytes are written at once, whatever more may come.
const GATHERED: usize = 512 * 1024;

/// Takes lines or spans; a cheap handle.
#[derive(Clone)]
pub(super) struct Sink(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    closed: bool,
}

impl Sink {
    /// Starts the thread of that name that writes to `output`, each time what has come within `gather`: what a program loses that
    /// is killed.
    pub(super) fn to(
        name: &str,
        output: impl Write + Send + 'static,
        gather: Duration,
        dropped: Counter,
    ) -> (Self, Flush) {
        let sink =
            Self(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), dropped }));
        let shared = Arc::clone(&sink.0);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || shared.write_out(output, gather))
            .expect("a thread can be started at the start of the program");
        (sink.clone(), Flush { sink, thread: Some(thread) })
    }

    pub(super) fn write(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.waiting.len() + line.len() > BUFFER_MAX {
            drop(state);
            self.0.dropped.increment(1);
            return;
        }
        let was = state.waiting.len();
        state.waiting.extend_from_slice(line);
        let is_enough = was < GATHERED && state.waiting.len() >= GATHERED;
        drop(state);
        if was == 0 || is_enough {
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, mut output: impl Write, gather: Duration) {
        let mut batch = Vec::new();
        let mut state = self.lock();
        loop {
            while state.waiting.is_empty() {
                if state.closed {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let gathers = |state: &mut State| !state.closed && state.waiting.len() < GATHERED;
            let gathered = self.changed.wait_timeout_while(state, gather, gathers);
            (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut state.waiting, &mut batch);
            drop(state);
            // There is nowhere left to report a broken output to.
            let _broken = output.write_all(&batch).and_then(|()| output.flush());
            batch.clear();
            state = self.lock();
        }
    }
}

/// Writes out what is left when it is dropped.
pub(super) struct Flush {
    sink: Sink,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.sink.0.lock().closed = true;
        self.sink.0.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread only panics if writing does; there is nothing to save then.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells of each write, and waits with each until it is let go on.
    struct Slow {
        told: mpsc::Sender<usize>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.told.send(bytes.len()).expect("the test listens");
            // Nobody is left to say so when the test has ended.
            let _ended = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn slow(gather: Duration) -> (Sink, Flush, mpsc::Receiver<usize>, mpsc::Sender<()>) {
        let ((told, hears), (lets, go_on)) = (mpsc::channel(), mpsc::channel());
        let (sink, flush) = Sink::to("test", Slow { told, go_on }, gather, Counter::noop());
        (sink, flush, hears, lets)
    }

    #[test]
    fn what_comes_within_a_while_is_written_at_once() {
        let (sink, flush, hears, lets) = slow(Duration::from_hours(1));

        for _ in 0..100 {
            sink.write(b"line\n");
        }
        lets.send(()).expect("it waits");
        drop(flush);

        assert_eq!(hears.iter().next(), Some(500), "and at the end without waiting");
    }

    #[test]
    fn enough_is_written_before_its_time() {
        let (sink, flush, hears, lets) = slow(Duration::from_hours(1));

        sink.write(&vec![b' '; GATHERED - 1]);
        sink.write(b"\n");

        assert_eq!(hears.recv(), Ok(GATHERED));
        drop(lets);
        drop(flush);
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let (sink, flush, hears, lets) = slow(Duration::ZERO);
        sink.write(b"first\n");
        assert_eq!(hears.recv(), Ok(6));

        sink.write(&vec![b' '; BUFFER_MAX - 4]);
        sink.write(b"too long\n");
        sink.write(b"fit\n");
        drop(lets);
        drop(flush);

        assert_eq!(hears.iter().sum::<usize>(), BUFFER_MAX);
    }
}
