//! The checks.

mod kernel;
mod network;
mod processor;

use crate::finding::Finding;
use crate::host::Host;

/// Everything that is looked at, in the order of the report.
pub(crate) fn all(host: &Host) -> Vec<Finding> {
    let checks: [fn(&Host) -> Finding; 17] = [
        kernel::version,
        kernel::io_uring,
        kernel::locked_memory,
        kernel::open_files,
        network::receive_buffers,
        network::send_buffers,
        network::segmentation_offload,
        network::receive_offload,
        network::backlog,
        processor::count,
        processor::governor,
        processor::idle_states,
        processor::isolated,
        processor::siblings,
        processor::interrupts,
        processor::clock_source,
        processor::numa,
    ];
    checks.iter().map(|check| check(host)).collect()
}
