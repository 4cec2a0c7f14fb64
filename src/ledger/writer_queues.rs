//! The writers of this process: one for each book, and one for the postings that touch several books.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::book::{FIRST_BOOK, Placement, index_of};
use super::transfer::Posting;
use super::writer::{Admission, CrossBookWriter, QueuedPosting, Writer};
use super::{LedgerOptions, StartError};
use crate::tasks::Tasks;

/// The queues of the writers. Cheap to clone.
#[derive(Clone)]
pub(super) struct WriterQueues {
    /// The queue of each book's writer, in the order of the books.
    books: Arc<[mpsc::Sender<QueuedPosting>]>,
    /// The [`Admission`] of each writer, which tracks the age of the writer's oldest posting.
    admissions: Arc<[Admission]>,
    /// The queue of postings that touch several books; `None` if there is only one book.
    cross_book: Option<mpsc::Sender<QueuedPosting>>,
}

impl WriterQueues {
    /// Connects and starts the writers.
    pub(super) async fn start(
        options: &LedgerOptions,
        admission: &Admission,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let settings = &options.settings;
        let (mut queues, mut admissions, mut writers) = (Vec::new(), Vec::new(), Vec::new());
        for book in FIRST_BOOK..=settings.books {
            let (queue, items) = mpsc::channel(settings.queue_max);
            let admission = admission.for_writer();
            writers.push(Writer::connect(options.clone(), book, items, admission.clone()).await?);
            admissions.push(admission);
            queues.push(queue);
        }
        let mut cross_book = None;
        if settings.books > FIRST_BOOK {
            let (queue, items) = mpsc::channel(settings.queue_max);
            let admission = admission.for_writer();
            let writer =
                CrossBookWriter::connect(options.clone(), items, admission.clone()).await?;
            admissions.push(admission);
            let stopping = tasks.stopping().clone();
            tasks.spawn("ledger-cross-book-writer", async move {
                writer.run(stopping).await;
                Ok(())
            });
            cross_book = Some(queue);
        }
        for writer in writers {
            let stopping = tasks.stopping().clone();
            tasks.spawn("ledger-writer", async move {
                writer.run(stopping).await;
                Ok(())
            });
        }
        Ok(Self { books: queues.into(), admissions: admissions.into(), cross_book })
    }

    /// The queue of the writer that writes this posting.
    pub(super) fn queue_of(&self, posting: &Posting) -> &mpsc::Sender<QueuedPosting> {
        let Some(cross_book) = &self.cross_book else { return &self.books[0] };
        let books = i32::try_from(self.books.len()).unwrap_or(i32::MAX);
        match Placement::new(posting, books) {
            Placement::One(book) => self.books.get(index_of(book)).unwrap_or(&self.books[0]),
            Placement::Several { .. } => cross_book,
        }
    }

    /// The age of the oldest posting to which a writer has not replied.
    pub(super) fn oldest_age(&self) -> Duration {
        self.admissions.iter().map(Admission::oldest_age).max().unwrap_or_default()
    }
}
