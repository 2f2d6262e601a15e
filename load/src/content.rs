//! What the bytes of a file are: a function of the file, the KiB within it, and how often that KiB was written, so that any read can
//! be verified without keeping what was written. Pure.

/// Bytes of one unit of content.
pub const KIB: usize = 1024;

/// Mixes the bits of a number (the finalizer of splitmix64, public domain).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The odd constant by which splitmix64 steps.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What tells one file's content from another's.
#[must_use]
pub const fn key(seed: u64, file: u64) -> u64 {
    mix(seed ^ mix(file.wrapping_add(STEP)))
}

/// The content of KiB number `at`, written for the `generation`-th time, eight bytes at a time.
fn words(key: u64, at: u64, generation: u32) -> impl Iterator<Item = [u8; 8]> {
    let mut state = mix(key ^ mix(at.wrapping_mul(STEP) ^ (u64::from(generation) << 40)));
    std::iter::repeat_with(move || {
        state = state.wrapping_add(STEP);
        mix(state).to_le_bytes()
    })
    .take(KIB / 8)
}

/// The bytes from KiB number `first` on, one KiB for each generation.
#[must_use]
pub fn bytes(key: u64, first: u64, generations: &[u32]) -> Vec<u8> {
    let mut all = Vec::with_capacity(generations.len() * KIB);
    for (at, generation) in (first..).zip(generations) {
        all.extend(words(key, at, *generation).flatten());
    }
    all
}

/// Where `data`, read from KiB number `first` on, is not what these generations say, if anywhere: a byte's place in `data`.
#[must_use]
pub fn wrong_at(key: u64, first: u64, generations: &[u32], data: &[u8]) -> Option<usize> {
    let whole = generations.len() * KIB;
    let mut got = data.chunks(8);
    for (i, (at, generation)) in (first..).zip(generations).enumerate() {
        for (j, word) in words(key, at, *generation).enumerate() {
            let from = i * KIB + j * 8;
            match got.next() {
                Some(part) if part == word => {}
                Some(part) => {
                    return Some(from + part.iter().zip(word).take_while(|(a, b)| **a == *b).count());
                }
                None => return Some(data.len()),
            }
        }
    }
    (data.len() > whole).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_right_and_any_change_is_seen(
            seed: u64, file: u64, first in 0u64..1 << 40,
            generations in proptest::collection::vec(any::<u32>(), 1..6), at: prop::sample::Index, flip in 1u8..,
        ) {
            let key = key(seed, file);
            let mut data = bytes(key, first, &generations);
            prop_assert_eq!(data.len(), generations.len() * KIB);
            prop_assert_eq!(wrong_at(key, first, &generations, &data), None);
            let at = at.index(data.len());
            data[at] ^= flip;
            prop_assert_eq!(wrong_at(key, first, &generations, &data), Some(at));
            data[at] ^= flip;
            prop_assert_eq!(wrong_at(key, first, &generations, &data[..at]), Some(at));
            data.push(0);
            prop_assert_eq!(wrong_at(key, first, &generations, &data), Some(data.len() - 1));
        }

        #[test]
        fn files_places_and_generations_differ(seed: u64, file: u64, at in 0u64..1 << 50, generation: u32) {
            let one = bytes(key(seed, file), at, &[generation]);
            prop_assert_ne!(&one, &bytes(key(seed, file.wrapping_add(1)), at, &[generation]));
            prop_assert_ne!(&one, &bytes(key(seed, file), at + 1, &[generation]));
            prop_assert_ne!(&one, &bytes(key(seed, file), at, &[generation.wrapping_add(1)]));
        }
    }
}
