//! Comparing and copying short strings of octets: names, keys and small bodies.
//!
//! For most of these a call of a library function costs more than the work. Instead the first and
//! the last word are compared or copied; they overlap if the string is shorter than two words.

/// Whether two strings are equal.
#[inline(always)]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    match left.len() {
        0 => true,
        1 => left[0] == right[0],
        2..4 => same_ends::<2>(left, right),
        4..8 => same_ends::<4>(left, right),
        8..=16 => same_ends::<8>(left, right),
        17..=32 => same_ends::<16>(left, right),
        33..=64 => same_ends::<32>(left, right),
        _ => left == right,
    }
}

#[inline(always)]
fn same_ends<const N: usize>(left: &[u8], right: &[u8]) -> bool {
    left.first_chunk::<N>() == right.first_chunk() && left.last_chunk::<N>() == right.last_chunk()
}

/// Copies between equal lengths.
#[inline(always)]
pub(crate) fn copy(target: &mut [u8], source: &[u8]) {
    match source.len() {
        0 => {}
        1 => copy_ends::<1>(target, source),
        33..=64 => copy_ends::<32>(target, source),
        17..=32 => copy_ends::<16>(target, source),
        8..=16 => copy_ends::<8>(target, source),
        4..8 => copy_ends::<4>(target, source),
        2..4 => copy_ends::<2>(target, source),
        _ => target.copy_from_slice(source),
    }
}

#[inline(always)]
fn copy_ends<const N: usize>(target: &mut [u8], source: &[u8]) {
    if let (Some(first), Some(last)) = (source.first_chunk::<N>(), source.last_chunk::<N>()) {
        if let Some(target) = target.first_chunk_mut::<N>() {
            *target = *first;
        }
        if let Some(target) = target.last_chunk_mut::<N>() {
            *target = *last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_every_difference() {
        for length in 0..200 {
            let left: Vec<u8> = (0..length).map(|octet| octet as u8).collect();
            let mut right = vec![0xAA; length];
            copy(&mut right, &left);
            assert_eq!(left, right);
            assert!(same(&left, &right));
            assert!(!same(&left, &[&right[..], b"x"].concat()));
            for at in 0..length {
                right[at] ^= 1;
                assert!(!same(&left, &right), "{length} octets, differing at {at}");
                right[at] ^= 1;
            }
        }
    }
}
