//! File to file over one loopback TCP connection, between two engines in one process, at N = 1400 and N = 65,536; the
//! control is a plain copy over a connection of the same kind in the same run. Throughput is in bytes of objects.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod bed;
mod plain;

use criterion::{Criterion, criterion_group, criterion_main};

fn bench(criterion: &mut Criterion) {
    bed::bench(criterion, "loopback", 0);
}

criterion_group!(benches, bench);
criterion_main!(benches);
