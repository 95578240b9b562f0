//! A Yjs document beside the server's.

use proto::statesync as pb;
use uuid::Uuid;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, OffsetKind, Options, Text, TextRef, Transact, Update};

pub struct Peer {
    pub doc: Doc,
    pub text: TextRef,
}

impl Peer {
    pub fn new(client: u64) -> Self {
        let mut options = Options::with_client_id(yrs::block::ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let text = doc.get_or_insert_text("content");
        Self { doc, text }
    }

    pub fn receive(&self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }

    pub fn insert(&self, pos: u32, ins: &str) -> Vec<u8> {
        let mut transaction = self.doc.transact_mut();
        self.text.insert(&mut transaction, pos, ins);
        transaction.encode_update_v1()
    }

    pub fn content(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }
}

/// An operation that is an update.
pub fn yjs(doc_id: &str, session: Uuid, update: Vec<u8>) -> pb::Operation {
    let encoding = pb::OperationEncoding::YjsUpdateV1.into();
    pb::Operation { encoding, data: update.into(), ..super::operation(doc_id, session, 0, "") }
}
