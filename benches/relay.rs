//! File to file through an exchange: three engines in one process, two loopback TCP connections, a spool in between;
//! the control is a plain copy in two hops with a spool file, in the same run. Throughput is in bytes of objects,
//! counted once.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod bed;
mod plain;

use criterion::{Criterion, criterion_group, criterion_main};

fn bench(criterion: &mut Criterion) {
    bed::bench(criterion, "relay", 1);
}

criterion_group!(benches, bench);
criterion_main!(benches);
