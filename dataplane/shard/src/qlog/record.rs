//! Events as JSON text sequences (RFC 7464), with the names of draft-ietf-quic-qlog-quic-events that `qvis` knows.

use std::time::Duration;

use quantum::wire::{Epoch, Frame, FrameIter, SackBlock};
use quantum::{ConnectionStats, Guuid, LogEvent, PacketInfo};
use serde_json::{Map, Value, json};

/// The byte before each record.
const RECORD_SEPARATOR: u8 = 0x1e;
/// Ranges of an acknowledgement that are told.
const RANGES_MAX: usize = 32;

/// What was last told of recovery.
#[derive(Debug, Default)]
pub(super) struct Metrics(Map<String, Value>);

fn put(out: &mut Vec<u8>, value: &Value) {
    out.push(RECORD_SEPARATOR);
    serde_json::to_writer(&mut *out, value).expect("a value writes to memory");
    out.push(b'\n');
}

/// The first record of a file.
pub(super) fn header(out: &mut Vec<u8>, guuid: Guuid, role: &str) {
    put(
        out,
        &json!({
            "qlog_version": "0.3",
            "qlog_format": "JSON-SEQ",
            "title": format!("Quantum connection {guuid}"),
            "trace": {
                "vantage_point": {"type": role},
                "common_fields": {
                    "ODCID": guuid.to_string(),
                    "group_id": guuid.to_string(),
                    "protocol_type": ["QUIC"],
                    "time_format": "relative",
                    "reference_time": 0,
                },
            },
        }),
    );
}

/// An event so long after the first one.
pub(super) fn event(out: &mut Vec<u8>, since: Duration, event: &LogEvent<'_>, metrics: &mut Metrics) {
    let (name, data) = match event {
        LogEvent::Started { remote } => {
            ("connectivity:connection_started", json!({"dst_ip": remote.ip().to_string(), "dst_port": remote.port()}))
        }
        LogEvent::PacketSent(packet) => ("transport:packet_sent", self::packet(packet)),
        LogEvent::PacketReceived(packet) => ("transport:packet_received", self::packet(packet)),
        LogEvent::PacketLost { number } => {
            ("recovery:packet_lost", json!({"header": {"packet_type": "1RTT", "packet_number": number}}))
        }
        LogEvent::Metrics(stats) => {
            let changed = metrics.change(stats);
            if changed.is_empty() {
                return;
            }
            ("recovery:metrics_updated", Value::Object(changed))
        }
        LogEvent::Migrated { remote } => {
            ("connectivity:migration_complete", json!({"dst_ip": remote.ip().to_string(), "dst_port": remote.port()}))
        }
        LogEvent::Closed(reason) => ("connectivity:connection_closed", json!({"reason": reason.to_string()})),
    };
    put(out, &json!({"time": milliseconds(since), "name": name, "data": data}));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

impl Metrics {
    /// What has changed since the last time.
    fn change(&mut self, stats: &ConnectionStats) -> Map<String, Value> {
        let congestion = &stats.congestion;
        let values = json!({
            "smoothed_rtt": milliseconds(stats.rtt_smoothed),
            "min_rtt": milliseconds(stats.rtt_min),
            "latest_rtt": milliseconds(stats.congestion.rtt_latest),
            "congestion_window": congestion.window_bytes,
            "bytes_in_flight": congestion.in_flight_bytes,
            "pacing_rate": congestion.pacing_rate.saturating_mul(8),
            "pto_count": stats.probe_timeouts,
            "congestion_state": congestion.state,
        });
        let Value::Object(values) = values else { return Map::new() };
        let told = std::mem::replace(&mut self.0, values.clone());
        values.into_iter().filter(|(name, value)| told.get(name) != Some(value)).collect()
    }
}

fn packet(packet: &PacketInfo<'_>) -> Value {
    let kind = match packet.epoch {
        Epoch::Initial => "initial",
        Epoch::Handshake => "handshake",
        epoch if epoch.is_one_rtt() => "1RTT",
        _ => "0RTT",
    };
    let mut frames: Vec<Value> = blocks(packet.blocks).into_iter().collect();
    // Frames that it does not know end the list, as they end a packet.
    frames.extend(FrameIter::new(packet.frames).map_while(Result::ok).map(|it| frame(&it)));
    json!({
        "header": {"packet_type": kind, "packet_number": packet.number},
        "raw": {"length": packet.size},
        "frames": frames,
    })
}

/// What the header acknowledges, as a frame.
fn blocks(blocks: &[SackBlock]) -> Option<Value> {
    let ranges: Vec<_> = blocks.iter().map(|block| json!([block.start, block.end])).collect();
    (!ranges.is_empty()).then(|| json!({"frame_type": "ack", "acked_ranges": ranges}))
}

fn frame(frame: &Frame<'_>) -> Value {
    match frame {
        Frame::Padding(len) => json!({"frame_type": "padding", "payload_length": len}),
        Frame::Ping => json!({"frame_type": "ping"}),
        Frame::Ack(ack) => {
            let ranges = ack.ranges.clone().take(RANGES_MAX);
            let ranges: Vec<_> = ranges.map(|range| json!([range.start(), range.end()])).collect();
            json!({"frame_type": "ack", "ack_delay": ack.delay_micros as f64 / 1e3, "acked_ranges": ranges})
        }
        Frame::Stream { id, offset, data, fin } => {
            json!({"frame_type": "stream", "stream_id": id.0, "offset": offset, "length": data.len(), "fin": fin})
        }
        Frame::Crypto { offset, data } => json!({"frame_type": "crypto", "offset": offset, "length": data.len()}),
        Frame::ResetStream { id, code, final_size } => {
            json!({"frame_type": "reset_stream", "stream_id": id.0, "error_code": code, "final_size": final_size})
        }
        Frame::StopSending { id, code } => {
            json!({"frame_type": "stop_sending", "stream_id": id.0, "error_code": code})
        }
        Frame::MaxData(max) => json!({"frame_type": "max_data", "maximum": max}),
        Frame::MaxStreamData { id, max } => {
            json!({"frame_type": "max_stream_data", "stream_id": id.0, "maximum": max})
        }
        Frame::MaxStreams(max) => json!({"frame_type": "max_streams", "stream_type": "bidirectional", "maximum": max}),
        Frame::ConnectionClose { code, application, .. } => {
            let space = if *application { "application" } else { "transport" };
            json!({"frame_type": "connection_close", "error_space": space, "error_code": code})
        }
        Frame::PathChallenge(data) => json!({"frame_type": "path_challenge", "data": hex(*data)}),
        Frame::PathResponse(data) => json!({"frame_type": "path_response", "data": hex(*data)}),
        Frame::HandshakeDone => json!({"frame_type": "handshake_done"}),
        Frame::Repair(repair) => {
            json!({"frame_type": "repair", "index": repair.index, "repairs": repair.repairs, "length": repair.data.len()})
        }
        // Types that other tools do not know either: the name is enough.
        other => {
            let name = format!("{other:?}");
            let name = name.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
            json!({"frame_type": "unknown", "name": name})
        }
    }
}

fn hex(bytes: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(bytes))
}
