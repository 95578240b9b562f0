//! What waits to be written by a store that keeps several documents' writes in one transaction.

use tokio::sync::oneshot;
use uuid::Uuid;

use super::model::DocumentRecord;
use super::store::Batch;
use crate::store::StoreError;

/// A write to the documents, done when its group is kept.
pub(super) enum Write {
    /// A document that does not exist yet, and who is told when it is there.
    Create(Box<DocumentRecord>, oneshot::Sender<Result<(), StoreError>>),
    /// More of a document.
    Batch(Box<Batch>),
}

impl Write {
    /// The document that it is of.
    pub(super) fn doc_id(&self) -> Uuid {
        match self {
            Write::Create(record, _) => record.id,
            Write::Batch(batch) => batch.doc_id,
        }
    }

    /// Roughly how many bytes it writes.
    pub(super) fn size(&self) -> usize {
        match self {
            Write::Create(record, _) => 512 + record.snapshot.state.len(),
            Write::Batch(batch) => {
                let rows = batch.rows.iter().map(|row| 256 + row.operation.data.len() + row.update.len());
                512 + rows.sum::<usize>() + batch.snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len())
            }
        }
    }

    /// How many operations of clients it stands for.
    pub(super) fn count(&self) -> u64 {
        match self {
            Write::Create(..) => 1,
            Write::Batch(batch) => batch.rows.len() as u64,
        }
    }

    /// Tells whoever waits what became of it.
    pub(super) fn finish(self, result: Result<(), StoreError>) {
        match self {
            // Whoever asked may have gone; the document stays.
            Write::Create(_, done) => drop(done.send(result)),
            Write::Batch(batch) => batch.done(result),
        }
    }
}
