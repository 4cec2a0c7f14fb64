//! Log writer: collects lines in memory, and a separate thread writes them to standard output or standard error.
//!
//! A request only copies its log line into a buffer, so a slow reader of the log does not delay the request. The thread
//! writes all lines of the buffer at once. If the buffer is full, new lines are dropped and counted.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::Counter;

/// Maximum size, in bytes, of the buffer of lines that are waiting to be written.
const BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Size of the buffer, in bytes, at which its lines are written without waiting for more lines.
const WRITE_BYTES_TYPICAL: usize = 512 * 1024;

/// Handle through which the process writes its log. Writing does not block. Cheap to clone.
#[derive(Clone)]
pub(super) struct LogWriter(Arc<Shared>);

struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    is_closed: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `output`. The thread waits at most `linger` before it writes a line, so a
    /// process that is killed loses only the lines of that period.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        linger: Duration,
        dropped: Counter,
    ) -> io::Result<(Self, LogFlush)> {
        let (buffer, changed) = (Mutex::default(), Condvar::new());
        let writer = Self(Arc::new(Shared { buffer, changed, dropped }));
        let shared = Arc::clone(&writer.0);
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_until_closed(output, linger))?;
        Ok((writer.clone(), LogFlush { writer, thread: Some(thread) }))
    }

    pub(super) fn write(&self, line: &[u8]) {
        let mut buffer = self.0.lock();
        if buffer.lines.len() + line.len() > BUFFER_BYTES_MAX {
            drop(buffer);
            self.0.dropped.increment(1);
            return;
        }
        let before = buffer.lines.len();
        buffer.lines.extend_from_slice(line);
        let is_enough = before < WRITE_BYTES_TYPICAL && buffer.lines.len() >= WRITE_BYTES_TYPICAL;
        drop(buffer);
        if before == 0 || is_enough {
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_until_closed(&self, mut output: impl Write, linger: Duration) {
        let mut lines = Vec::new();
        let mut buffer = self.lock();
        loop {
            while buffer.lines.is_empty() {
                if buffer.is_closed {
                    return;
                }
                buffer = self.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner);
            }
            let lingers =
                |buffer: &mut Buffer| !buffer.is_closed && buffer.lines.len() < WRITE_BYTES_TYPICAL;
            let lingered = self.changed.wait_timeout_while(buffer, linger, lingers);
            (buffer, _) = lingered.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut buffer.lines, &mut lines);
            drop(buffer);
            // If the log output is broken, there is nowhere left to report it.
            let _broken = output.write_all(&lines).and_then(|()| output.flush());
            lines.clear();
            buffer = self.lock();
        }
    }
}

/// Guard that, when dropped, writes the last log lines.
pub(super) struct LogFlush {
    writer: LogWriter,
    thread: Option<JoinHandle<()>>,
}

impl Drop for LogFlush {
    fn drop(&mut self) {
        self.writer.0.lock().is_closed = true;
        self.writer.0.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread panics only if a write panics, and then the remaining lines cannot be written anyway.
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that reports each write to the test, and then blocks until the test permits the write.
    struct SlowOutput {
        written: mpsc::Sender<usize>,
        proceed: mpsc::Receiver<()>,
    }

    impl Write for SlowOutput {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.written.send(bytes.len()).expect("the test receives");
            // After the test has ended, `recv` fails and the write proceeds.
            let _ended = self.proceed.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn start(linger: Duration) -> (LogWriter, LogFlush, mpsc::Receiver<usize>, mpsc::Sender<()>) {
        let ((written, writes), (permit, proceed)) = (mpsc::channel(), mpsc::channel());
        let output = SlowOutput { written, proceed };
        let (writer, flush) =
            LogWriter::start(output, linger, Counter::noop()).expect("a thread can be started");
        (writer, flush, writes, permit)
    }

    #[test]
    fn lines_that_gather_are_written_together() {
        let (writer, flush, writes, permit) = start(Duration::from_hours(1));

        for _ in 0..100 {
            writer.write(b"line\n");
        }
        permit.send(()).expect("the thread waits");
        drop(flush);

        assert_eq!(writes.iter().next(), Some(500), "and at the end without lingering");
    }

    #[test]
    fn a_large_buffer_is_written_without_lingering() {
        let (writer, flush, writes, permit) = start(Duration::from_hours(1));

        writer.write(&vec![b' '; WRITE_BYTES_TYPICAL - 1]);
        writer.write(b"\n");

        assert_eq!(writes.recv(), Ok(WRITE_BYTES_TYPICAL));
        drop(permit);
        drop(flush);
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped() {
        let (writer, flush, writes, permit) = start(Duration::ZERO);
        writer.write(b"first\n");
        assert_eq!(writes.recv(), Ok(6));

        writer.write(&vec![b' '; BUFFER_BYTES_MAX - 4]);
        writer.write(b"too long\n");
        writer.write(b"fit\n");
        drop(permit);
        drop(flush);

        assert_eq!(writes.iter().sum::<usize>(), BUFFER_BYTES_MAX);
    }
}
