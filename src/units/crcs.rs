//! The checksums of an object's blocks, a list that is nearly always of one.

use std::fmt;

/// CRC-32C of each block of an object, in order. Most objects are one block at most, which costs no allocation. For the
/// others a box in a box: the list is shorter for it, and leaves room to tell that there is none.
#[derive(Clone, PartialEq, Eq)]
pub struct BlockCrcs(Kept);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    One(u32),
    Any(Box<Box<[u32]>>),
}

impl std::ops::Deref for BlockCrcs {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        match &self.0 {
            Kept::One(crc) => std::slice::from_ref(crc),
            Kept::Any(crcs) => crcs,
        }
    }
}

impl From<Vec<u32>> for BlockCrcs {
    fn from(crcs: Vec<u32>) -> Self {
        if let [crc] = crcs[..] { Self(Kept::One(crc)) } else { Self(Kept::Any(Box::new(crcs.into()))) }
    }
}

impl FromIterator<u32> for BlockCrcs {
    fn from_iter<I: IntoIterator<Item = u32>>(crcs: I) -> Self {
        let mut crcs = crcs.into_iter();
        match (crcs.next(), crcs.next()) {
            (None, _) => Self(Kept::Any(Box::default())),
            (Some(only), None) => Self(Kept::One(only)),
            (Some(first), Some(second)) => Self(Kept::Any(Box::new([first, second].into_iter().chain(crcs).collect()))),
        }
    }
}

impl fmt::Debug for BlockCrcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|crc| format!("{crc:08x}"))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_checksum_needs_no_allocation() {
        assert_eq!((size_of::<BlockCrcs>(), size_of::<Option<BlockCrcs>>()), (16, 16));
        for count in 0..4 {
            let crcs: Vec<u32> = (7..7 + count).collect();
            let kept = BlockCrcs::from(crcs.clone());
            assert_eq!(kept[..], crcs[..]);
            assert_eq!(kept, crcs.iter().copied().collect());
            assert_eq!(matches!(kept.0, Kept::One(_)), count == 1);
        }
    }
}
