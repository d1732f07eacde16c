//! How long a scan of many small files takes: what a node does at every start and after every change.
//!
//! 20,000 files of 16 bytes in 100 directories, and in one. The listing is warm: the figure is the walk's own cost.

use std::fs;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use supersync::store::{Root, scan};

const FILES: usize = 20_000;

fn fill(root: &Path, directories: usize) {
    for directory in 0..directories {
        let path = root.join(format!("d{directory}"));
        fs::create_dir(&path).expect("a fresh directory takes a name");
        for file in 0..FILES / directories {
            fs::write(path.join(format!("f{file}")), [b'x'; 16]).expect("a fresh directory takes a file");
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(20);
    for directories in [100, 1] {
        let root = tempfile::tempdir().expect("a temporary directory");
        fill(root.path(), directories);
        let opened = Root::open(root.path()).expect("it exists");
        assert_eq!(scan(&opened).expect("readable").objects.len(), FILES);
        group.bench_function(format!("{FILES} files in {directories}"), |bencher| {
            bencher.iter(|| scan(&opened).expect("readable"));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
