//! Memory for ranges on their way between socket and file.
//!
//! A range is a megabyte on a fast link. Memory of that size from the allocator comes from the kernel and goes back to
//! it, page by page, each zeroed before it is used. So long ranges share a pool that stays warm.
//! Short ones, and those that find the pool empty, are the allocator's.

use bytes::{Bytes, BytesMut};

use crate::limits;
use crate::units::ByteCount;
use crate::uring::{Buffer, Pool};

/// Where a range is gathered, or read to.
#[derive(Debug)]
pub(super) enum Space {
    Pooled(Buffer),
    Allocated(BytesMut),
}

impl Space {
    /// An empty one for `length` bytes, at most a block.
    pub(super) fn new(pool: &Pool, length: ByteCount) -> Self {
        let is_long = length.0 >= limits::RANGE_POOLED_BYTES_MIN;
        match is_long.then(|| pool.take()).flatten() {
            Some(buffer) => Self::Pooled(buffer),
            None => Self::Allocated(BytesMut::with_capacity(length.0 as usize)),
        }
    }

    /// Adds bytes that came in.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        match self {
            Self::Pooled(buffer) => buffer.copy_from(bytes),
            Self::Allocated(all) => all.extend_from_slice(bytes),
        }
    }

    /// Adds `length` bytes that `read` fills in.
    pub(super) fn fill<E>(
        &mut self,
        length: ByteCount,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = length.0 as usize;
        match self {
            Self::Pooled(buffer) => buffer.fill_with(length, read),
            Self::Allocated(all) => {
                let start = all.len();
                all.resize(start + length, 0);
                read(&mut all[start..])
            }
        }
    }

    /// What is in it. The memory goes back to the pool when nobody has any of it any more.
    pub(super) fn freeze(self) -> Bytes {
        match self {
            Self::Pooled(buffer) => Bytes::from_owner(buffer),
            Self::Allocated(all) => all.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: ByteCount = ByteCount(limits::RANGE_POOLED_BYTES_MIN);

    fn gathered(mut space: Space, halves: &[u8]) -> Bytes {
        space.extend(halves);
        let read = |place: &mut [u8]| {
            place.copy_from_slice(halves);
            Ok::<(), ()>(())
        };
        space.fill(ByteCount(halves.len() as u64), read).expect("it fits");
        space.freeze()
    }

    #[test]
    fn long_ranges_borrow_from_the_pool_and_all_read_the_same() {
        let pool = Pool::new(1, 2 * LONG.0 as usize).expect("a small pool");
        let half: Vec<u8> = (0..LONG.0).map(|at| at as u8).collect();
        let pooled = gathered(Space::new(&pool, LONG), &half);
        assert_eq!(pool.available(), 0);
        let allocated = gathered(Space::new(&pool, LONG), &half);
        assert_eq!(pooled, allocated);
        assert_eq!(pooled, [&half[..], &half[..]].concat());
        let part = pooled.slice(1..2);
        drop(pooled);
        assert_eq!(pool.available(), 0, "somebody has a part of it");
        drop(part);
        assert_eq!(pool.available(), 1);
        drop(gathered(Space::new(&pool, ByteCount(LONG.0 - 1)), &half[1..]));
    }

    #[test]
    fn what_cannot_be_read_is_not_in_it() {
        let pool = Pool::new(1, LONG.0 as usize).expect("a small pool");
        let mut space = Space::new(&pool, LONG);
        assert_eq!(space.fill(LONG, |_| Err("gone")), Err("gone"));
        space.extend(b"all there is");
        assert_eq!(space.freeze(), &b"all there is"[..]);
    }
}
