//! Heads and tails as HTTP knows them, and the blocks that carry them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, uri::PathAndQuery};

use super::dictionary::Acknowledgement;
use super::field::Field;
use super::{MappingError, varint};

const PATH: &str = ":path";
const STATUS: &str = ":status";
const ACK: &str = ":ack";

/// What begins a request.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    /// Response templates that this side has decoded.
    pub(crate) acknowledgements: Vec<Acknowledgement>,
}

impl RequestHead {
    pub(crate) fn to_fields(&self) -> Vec<Field> {
        let mut fields = Vec::with_capacity(self.headers.len() + 2);
        fields.push(Field::new(PATH, Bytes::copy_from_slice(self.path.as_str().as_bytes())));
        push_headers(&self.headers, &mut fields);
        if !self.acknowledgements.is_empty() {
            let mut value = BytesMut::new();
            for acknowledgement in &self.acknowledgements {
                acknowledgement.encode(&mut value);
            }
            fields.push(Field::new(ACK, value.freeze()));
        }
        fields
    }

    pub(crate) fn from_fields(fields: Vec<Field>) -> Result<Self, MappingError> {
        let mut path = None;
        let mut headers = HeaderMap::with_capacity(fields.len());
        let mut acknowledgements = Vec::new();
        for mut field in fields {
            match &field.name[..] {
                b":path" => {
                    let valid = PathAndQuery::from_maybe_shared(field.value).map_err(|_| MappingError::Invalid)?;
                    if !valid.as_str().starts_with('/') || path.replace(valid).is_some() {
                        return Err(MappingError::Invalid);
                    }
                }
                b":ack" => {
                    while !field.value.is_empty() {
                        acknowledgements.push(Acknowledgement::decode(&mut field.value)?);
                    }
                }
                _ => insert(&mut headers, field)?,
            }
        }
        Ok(Self { path: path.ok_or(MappingError::Invalid)?, headers, acknowledgements })
    }
}

/// What begins a response. With `grpc-status` among the headers it is all of it (trailers-only).
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl ResponseHead {
    pub(crate) fn to_fields(&self) -> Vec<Field> {
        let mut fields = Vec::with_capacity(self.headers.len() + 1);
        if self.status != StatusCode::OK {
            fields.push(Field::new(STATUS, Bytes::copy_from_slice(self.status.as_str().as_bytes())));
        }
        push_headers(&self.headers, &mut fields);
        fields
    }

    pub(crate) fn from_fields(fields: Vec<Field>) -> Result<Self, MappingError> {
        let mut status = StatusCode::OK;
        let mut headers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            if &field.name[..] == STATUS.as_bytes() {
                status = StatusCode::from_bytes(&field.value).map_err(|_| MappingError::Invalid)?;
            } else {
                insert(&mut headers, field)?;
            }
        }
        Ok(Self { status, headers })
    }
}

/// Trailers as the fields of a tail.
pub(crate) fn tail_fields(trailers: &HeaderMap) -> Vec<Field> {
    let mut fields = Vec::with_capacity(trailers.len());
    push_headers(trailers, &mut fields);
    fields
}

/// The trailers that a tail's fields are.
pub(crate) fn tail_from_fields(fields: Vec<Field>) -> Result<HeaderMap, MappingError> {
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        insert(&mut trailers, field)?;
    }
    Ok(trailers)
}

fn push_headers(headers: &HeaderMap, fields: &mut Vec<Field>) {
    for (name, value) in headers {
        let name = Bytes::copy_from_slice(name.as_str().as_bytes());
        fields.push(Field { name, value: Bytes::copy_from_slice(value.as_bytes()) });
    }
}

fn insert(headers: &mut HeaderMap, field: Field) -> Result<(), MappingError> {
    let name = HeaderName::from_lowercase(&field.name).map_err(|_| MappingError::Invalid)?;
    let value = HeaderValue::from_maybe_shared(field.value).map_err(|_| MappingError::Invalid)?;
    headers.append(name, value);
    Ok(())
}

/// A block with its length before it.
pub(crate) fn frame_block(block: &[u8], out: &mut impl BufMut) {
    varint::put(out, block.len() as u64);
    out.put_slice(block);
}

/// Gathers a block from the chunks of a stream.
#[derive(Debug)]
pub(crate) struct BlockReader {
    gathered: BytesMut,
    bytes_max: usize,
}

impl BlockReader {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { gathered: BytesMut::new(), bytes_max }
    }

    /// Takes what it needs off the front of `chunk`. Gives the block once it is whole; `chunk` then holds what follows it.
    pub(crate) fn push(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, MappingError> {
        loop {
            let mut head = &self.gathered[..];
            let missing = match varint::get(&mut head) {
                Ok(len) if len > self.bytes_max as u64 => return Err(MappingError::TooLarge(len)),
                Ok(len) if head.len() as u64 == len => {
                    let prefix = self.gathered.len() - len as usize;
                    let mut block = self.gathered.split().freeze();
                    block.advance(prefix);
                    return Ok(Some(block));
                }
                Ok(len) => len as usize - head.len(),
                Err(MappingError::Truncated) => 1,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok(None);
            }
            let taken = chunk.split_to(missing.min(chunk.len()));
            self.gathered.extend_from_slice(&taken);
        }
    }
}
