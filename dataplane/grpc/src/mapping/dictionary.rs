//! The per-connection dictionary: heads that come again are named by number.
//!
//! Each direction has its own. The sender decides what is kept and where; the receiver only follows. Streams are not ordered
//! among each other, so the sender refers to a template only once it knows that the head which defined it was decoded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::field::Field;
use super::{MappingError, varint};

/// Templates of one direction of a connection at most.
pub(crate) const SLOTS: usize = 64;

/// Cost of one template at most ([`Field::cost`]), so that a connection's dictionary stays under 256 KiB.
const TEMPLATE_COST_MAX: usize = 4096;

/// Fields of a head at most, those of its template included.
const FIELDS_MAX: usize = 256;

/// Templates that both ends have from the start, numbered from 1.
const FIXED: usize = 3;

fn fixed(number: usize) -> Vec<Field> {
    let grpc = Field::new("content-type", Bytes::from_static(b"application/grpc"));
    match number {
        1 => vec![Field::new("te", Bytes::from_static(b"trailers")), grpc],
        2 => vec![grpc],
        _ => vec![Field::new("grpc-status", Bytes::from_static(b"0"))],
    }
}

/// Says that a template was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) slot: u64,
    pub(crate) generation: u64,
}

impl Acknowledgement {
    pub(super) fn encode(self, out: &mut BytesMut) {
        varint::put(out, self.slot);
        varint::put(out, self.generation);
    }

    pub(super) fn decode(block: &mut Bytes) -> Result<Self, MappingError> {
        Ok(Self { slot: varint::get(block)?, generation: varint::get(block)? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    /// Sent, and not known to have been decoded.
    Pending,
    /// The stream that defined it ended without an answer: whether it was decoded will never be known.
    Abandoned,
    Known,
}

#[derive(Debug)]
struct Slot {
    fields: Vec<Field>,
    generation: u64,
    state: SlotState,
    /// Heads that refer to it and are not known to have been decoded. Not replaced while there are any.
    references: u64,
    used: u64,
}

#[derive(Debug, Default)]
struct EncoderState {
    slots: Vec<Slot>,
    uses: u64,
}

/// The sending side of one direction.
#[derive(Debug)]
pub(crate) struct Encoder {
    state: Mutex<EncoderState>,
    replaces: bool,
}

/// What one head did to the dictionary: to be [`settle`](Self::settle)d once the peer is known to have decoded it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    encoder: Arc<Encoder>,
    defined: Option<Acknowledgement>,
    referred: Option<usize>,
}

impl Encoder {
    /// An empty dictionary. Where references are never known to have been decoded, as with responses, it must not replace.
    pub(crate) fn new(replaces: bool) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), replaces })
    }

    fn state(&self) -> MutexGuard<'_, EncoderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block of a head.
    pub(crate) fn encode(self: &Arc<Self>, fields: &[Field], out: &mut BytesMut) -> Ticket {
        let mut ticket = Ticket { encoder: self.clone(), defined: None, referred: None };
        if let Some(number) = (1..=FIXED).find(|&number| fixed(number) == fields) {
            varint::put(out, (number as u64) << 1);
            return ticket;
        }
        let lasting: Vec<&Field> = fields.iter().filter(|field| field.lasting()).collect();
        let mut state = self.state();
        state.uses += 1;
        let uses = state.uses;
        if let Some(at) = state.slots.iter().position(|slot| slot.fields.iter().eq(lasting.iter().copied())) {
            let slot = &mut state.slots[at];
            slot.used = uses;
            if slot.state == SlotState::Known {
                slot.references += 1;
                ticket.referred = Some(at);
                varint::put(out, ((FIXED + 1 + at) as u64) << 1);
                for field in fields.iter().filter(|field| !field.lasting()) {
                    field.encode(out, false);
                }
                return ticket;
            }
        }
        ticket.defined = state.define(&lasting, self.replaces);
        drop(state);
        varint::put(out, u64::from(ticket.defined.is_some()));
        if let Some(defined) = ticket.defined {
            defined.encode(out);
        }
        for field in fields {
            field.encode(out, field.lasting());
        }
        ticket
    }

    /// The peer says that it decoded a template. Anything may come here.
    pub(crate) fn acknowledge(&self, acknowledgement: Acknowledgement) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut(usize::try_from(acknowledgement.slot).unwrap_or(usize::MAX))
            && slot.generation == acknowledgement.generation
        {
            slot.state = SlotState::Known;
        }
    }
}

impl EncoderState {
    fn define(&mut self, lasting: &[&Field], replaces: bool) -> Option<Acknowledgement> {
        if lasting.is_empty() || lasting.iter().map(|field| field.cost()).sum::<usize>() > TEMPLATE_COST_MAX {
            return None;
        }
        let same = self.slots.iter().position(|slot| slot.fields.iter().eq(lasting.iter().copied()));
        if let Some(at) = same {
            let slot = &mut self.slots[at];
            if slot.state != SlotState::Abandoned {
                return None;
            }
            slot.generation += 1;
            slot.state = SlotState::Pending;
            return Some(Acknowledgement { slot: at as u64, generation: slot.generation });
        }
        let fields = lasting.iter().map(|&field| field.clone()).collect();
        let mut slot = Slot { fields, generation: 1, state: SlotState::Pending, references: 0, used: self.uses };
        if self.slots.len() < SLOTS {
            self.slots.push(slot);
            return Some(Acknowledgement { slot: self.slots.len() as u64 - 1, generation: 1 });
        }
        let free =
            self.slots.iter().enumerate().filter(|(_, slot)| slot.references == 0 && slot.state != SlotState::Pending);
        let (at, _) = free.min_by_key(|(_, slot)| slot.used).filter(|_| replaces)?;
        slot.generation = self.slots[at].generation + 1;
        let generation = slot.generation;
        self.slots[at] = slot;
        Some(Acknowledgement { slot: at as u64, generation })
    }
}

impl Ticket {
    /// The peer is known to have decoded the head.
    pub(crate) fn settle(mut self) {
        if let Some(defined) = self.defined.take() {
            self.encoder.acknowledge(defined);
        }
        if let Some(at) = self.referred.take() {
            self.encoder.state().slots[at].references -= 1;
        }
    }

    /// The peer says by itself what it decoded: nothing is to be settled.
    pub(crate) fn leave_to_peer(mut self) {
        self.defined = None;
        self.referred = None;
    }
}

impl Drop for Ticket {
    /// It will never be known whether the head was decoded. A template that it refers to stays what it is for good: a head
    /// that arrives late must not be read with another one.
    fn drop(&mut self) {
        let Some(defined) = self.defined else { return };
        let mut state = self.encoder.state();
        let slot = &mut state.slots[defined.slot as usize];
        if slot.generation == defined.generation && slot.state == SlotState::Pending {
            slot.state = SlotState::Abandoned;
        }
    }
}

/// The receiving side of one direction.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    slots: Mutex<Vec<(u64, Arc<[Field]>)>>,
}

impl Decoder {
    fn slots(&self) -> MutexGuard<'_, Vec<(u64, Arc<[Field]>)>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fields of a block, and what it defined, to be acknowledged.
    pub(crate) fn decode(&self, mut block: Bytes) -> Result<(Vec<Field>, Option<Acknowledgement>), MappingError> {
        let tag = varint::get(&mut block)?;
        let defined = if tag & 1 == 1 { Some(Acknowledgement::decode(&mut block)?) } else { None };
        let mut fields = self.base(tag >> 1)?;
        let mut template = Vec::new();
        while !block.is_empty() {
            let (field, templated) = Field::decode(&mut block)?;
            if fields.len() == FIELDS_MAX {
                return Err(MappingError::TooManyFields);
            }
            if templated && defined.is_some() {
                // Copied, so that a template does not hold on to the chunk that it arrived in.
                let name = Bytes::copy_from_slice(&field.name);
                template.push(Field { name, value: Bytes::copy_from_slice(&field.value) });
            }
            fields.push(field);
        }
        if let Some(defined) = defined {
            self.define(defined, template)?;
        }
        Ok((fields, defined))
    }

    fn base(&self, number: u64) -> Result<Vec<Field>, MappingError> {
        let unknown = MappingError::UnknownEntry(number);
        let number = usize::try_from(number).map_err(|_| unknown)?;
        if number <= FIXED {
            return Ok(if number == 0 { Vec::new() } else { fixed(number) });
        }
        let slots = self.slots();
        let (generation, fields) = slots.get(number - FIXED - 1).ok_or(unknown)?;
        if *generation == 0 { Err(unknown) } else { Ok(fields.to_vec()) }
    }

    fn define(&self, defined: Acknowledgement, template: Vec<Field>) -> Result<(), MappingError> {
        if defined.slot >= SLOTS as u64 {
            return Err(MappingError::UnknownEntry(defined.slot));
        }
        if template.iter().map(Field::cost).sum::<usize>() > TEMPLATE_COST_MAX {
            return Err(MappingError::EntryTooLarge);
        }
        let mut slots = self.slots();
        let at = defined.slot as usize;
        if slots.len() <= at {
            slots.resize(at + 1, (0, Arc::default()));
        }
        // An older definition that arrives late changes nothing.
        if defined.generation > slots[at].0 {
            slots[at] = (defined.generation, template.into());
        }
        Ok(())
    }
}

/// The block of a head that neither uses nor changes the dictionary.
pub(crate) fn encode_plain(fields: &[Field], out: &mut BytesMut) {
    varint::put(out, 0);
    for field in fields {
        field.encode(out, false);
    }
}

/// Acknowledgements that wait to be carried.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements(Mutex<VecDeque<Acknowledgement>>);

impl Acknowledgements {
    pub(crate) fn add(&self, acknowledgement: Acknowledgement) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.contains(&acknowledgement) && waiting.len() < SLOTS {
            waiting.push_back(acknowledgement);
        }
    }

    pub(crate) fn take(&self) -> Vec<Acknowledgement> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}
