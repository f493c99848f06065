use super::*;
use proptest::prelude::*;

fn archived(index: &NameIndex) -> rkyv::util::AlignedVec {
    rkyv::to_bytes::<rkyv::rancor::Error>(index).unwrap()
}

fn find(bytes: &[u8], names: &[&str], name: &str) -> Option<u32> {
    let index = rkyv::access::<ArchivedNameIndex, rkyv::rancor::Error>(bytes).unwrap();
    index.find(name.as_bytes(), |at| names.get(at).copied())
}

#[test]
fn every_name_of_many_is_found_and_no_other() {
    let names: Vec<String> = (0..20_000).map(|n| format!("vendor/model-{}-{}", n / 100, n % 100)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let index = NameIndex::new(&names);
    assert!(!index.slots.is_empty() && index.slots.len() <= 8 * names.len().next_power_of_two());
    let bytes = archived(&index);
    for (name, at) in names.iter().zip(0..) {
        assert_eq!(find(&bytes, &names, name), Some(at));
        assert_eq!(find(&bytes, &names, &format!("{name}x")), None);
    }
}

#[test]
fn names_that_spread_under_no_salt_are_found_by_halving() {
    let names = ["b", "", "c", "a"];
    let index = NameIndex::within(&names, 0);
    assert_eq!((index.slots.len(), &index.by_name[..]), (0, &[1, 3, 0, 2][..]));
    let bytes = archived(&index);
    for (name, at) in names.iter().zip(0..) {
        assert_eq!(find(&bytes, &names, name), Some(at));
    }
    assert_eq!(find(&bytes, &names, "d"), None);
}

#[test]
fn nothing_is_found_among_no_names() {
    for index in [NameIndex::new(&[]), NameIndex::default()] {
        assert_eq!(find(&archived(&index), &[], ""), None);
    }
}

#[test]
fn the_hash_is_the_same_wherever_it_is_made() {
    // Files that were written have it.
    let hashes = ["", "a", "gpt-4", "gpt-4o", "claude-3", "claude-sonnet-4"].map(|name| hash(name.as_bytes(), 1));
    assert_eq!(
        hashes,
        [
            10_453_848_172_980_621_465,
            17_795_597_486_936_424_108,
            2_364_915_215_479_462_153,
            8_294_890_787_446_138_545,
            16_691_103_804_064_328_164,
            10_317_781_389_390_229_011,
        ]
    );
}

proptest! {
    #[test]
    fn a_name_is_found_where_the_list_has_it(names in prop::collection::btree_set("[a-d/]{0,20}", 0..60), other in "[a-d/]{0,20}") {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for index in [NameIndex::new(&names), NameIndex::within(&names, 0)] {
            let bytes = archived(&index);
            for name in names.iter().chain([&other.as_str()]) {
                let listed = names.iter().position(|one| one == name).map(|at| at as u32);
                prop_assert_eq!(find(&bytes, &names, name), listed);
            }
        }
    }

    #[test]
    fn an_index_that_fits_no_list_finds_what_is_there_or_nothing(
        slots in prop::collection::vec((any::<u32>(), any::<u32>()), 0..9), by_name: Vec<u32>, salt: u64,
    ) {
        let slots = slots.into_iter().map(|(tag, at)| Slot { tag, at }).collect();
        let bytes = archived(&NameIndex { salt, slots, by_name });
        prop_assert!(find(&bytes, &["a"], "a").is_none_or(|at| at == 0));
    }
}
