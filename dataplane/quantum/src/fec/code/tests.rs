use proptest::prelude::*;

use super::*;

fn shards(count: usize, len: usize) -> Vec<Vec<u8>> {
    let shard = |nth: usize| (0..len - nth % 3).map(|byte| (byte * 31 + nth * 17 + byte / 7) as u8).collect();
    (0..count).map(shard).collect()
}

/// Loses `lost` shards and as many repair shards as can be spared, and compares.
fn check(group: &[Vec<u8>], repairs: usize, lost: &[usize], spared: &[usize]) {
    let all: Vec<&[u8]> = group.iter().map(Vec::as_slice).collect();
    let encoded = encode(&all, repairs).unwrap();
    let known: Vec<Option<&[u8]>> =
        all.iter().enumerate().map(|(index, shard)| (!lost.contains(&index)).then_some(*shard)).collect();
    let received: Vec<Repair<'_>> = encoded.iter().map(Vec::as_slice).enumerate().collect();
    let received: Vec<Repair<'_>> = received.into_iter().filter(|(index, _)| !spared.contains(index)).collect();
    let mut restored = decode(&known, repairs, &received).unwrap();
    restored.sort();
    let indices: Vec<usize> = restored.iter().map(|(index, _)| *index).collect();
    assert_eq!(indices, lost);
    for (index, data) in restored {
        assert_eq!(&data[..group[index].len()], group[index], "shard {index}");
        assert!(data[group[index].len()..].iter().all(|&byte| byte == 0), "it is filled up with zeros");
    }
}

#[test]
fn any_three_of_thirteen_shards_may_be_lost() {
    let group = shards(10, 1_200);
    for first in 0..13_usize {
        for second in first + 1..13 {
            for third in second + 1..13 {
                let (lost, spared): (Vec<usize>, Vec<usize>) = [first, second, third].iter().partition(|&&it| it < 10);
                let spared: Vec<usize> = spared.iter().map(|it| it - 10).collect();
                if !lost.is_empty() {
                    check(&group, 3, &lost, &spared);
                }
            }
        }
    }
}

#[test]
fn repair_shards_of_one_shard_are_copies_and_the_first_of_several_is_their_sum() {
    assert_eq!(encode(&[b"alone"], 3).unwrap(), [b"alone", b"alone", b"alone"]);
    assert_eq!(encode(&[&[1, 2, 3], &[4]], 1).unwrap(), [[5, 2, 3]]);
}

#[test]
fn a_large_group_uses_the_large_code() {
    assert_eq!(choose(90, 6), Code::Cauchy);
    assert_eq!(choose(90, 7), Code::Large);
    check(&shards(100, 301), 20, &[0, 7, 50, 51, 52, 99], &[1, 2, 19]);
}

#[test]
fn too_few_or_senseless_shards_restore_nothing() {
    let group = shards(4, 50);
    let all: Vec<&[u8]> = group.iter().map(Vec::as_slice).collect();
    let encoded = encode(&all, 2).unwrap();
    let (first, second) = (encoded[0].as_slice(), encoded[1].as_slice());
    let known = [None, None, Some(all[2]), Some(all[3])];
    assert!(decode(&known, 2, &[(0, first)]).is_none(), "two are missing");
    assert!(decode(&known, 2, &[(0, first), (0, first)]).is_none(), "one shard twice");
    assert!(decode(&known, 2, &[(0, first), (2, second)]).is_none(), "an index beyond the last");
    assert!(decode(&known, 2, &[(0, first), (1, &second[1..])]).is_none(), "different lengths");
    assert!(decode(&known, 2, &[]).is_none());
    assert!(decode(&all.iter().copied().map(Some).collect::<Vec<_>>(), 2, &[(0, first)]).is_none(), "none is missing");
    let long = vec![1; 51];
    assert!(decode(&[Some(&long), None, Some(all[2]), Some(all[3])], 2, &[(0, first)]).is_none(), "too long a shard");
    assert!(encode(&all, REPAIRS_MAX + 1).is_none());
    assert!(encode(&[], 1).is_none() && encode(&all, 0).is_none());
    assert!(encode(&vec![b"shard".as_slice(); SHARDS_MAX], 1).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn as_many_shards_come_back_as_there_are_repair_shards(
        members in 1..120_usize,
        repairs in 1..20_usize,
        len in 4..200_usize,
        order in any::<prop::sample::Index>(),
        step in 0..1_000_usize,
    ) {
        let group = shards(members, len);
        let step = (step + 1..step + 1 + members).find(|step| gcd(*step, members) == 1).unwrap();
        let start = order.index(members);
        let mut lost: Vec<usize> = (0..repairs.min(members)).map(|nth| (start + nth * step) % members).collect();
        lost.sort_unstable();
        check(&group, repairs, &lost, &[]);
    }

    #[test]
    fn hostile_shards_never_panic(
        shards in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..40),
        repairs in 0..80_usize,
        received in prop::collection::vec((0..80_usize, prop::collection::vec(any::<u8>(), 0..20)), 0..8),
    ) {
        let shards: Vec<Option<&[u8]>> = shards.iter().map(Option::as_deref).collect();
        let received: Vec<Repair<'_>> = received.iter().map(|(index, data)| (*index, data.as_slice())).collect();
        let _ = decode(&shards, repairs, &received);
    }
}

fn gcd(left: usize, right: usize) -> usize {
    if right == 0 { left } else { gcd(right, left % right) }
}
