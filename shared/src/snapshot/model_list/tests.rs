use super::*;
use proptest::prelude::*;

fn contains(list: &ModelList, number: u32) -> bool {
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(list).unwrap();
    rkyv::access::<ArchivedModelList, rkyv::rancor::Error>(&bytes).unwrap().contains(number)
}

#[test]
fn a_list_far_apart_has_no_bits() {
    let (near, far) = (ModelList::new(vec![70, 7, 64]), ModelList::new(vec![u32::MAX, 0]));
    assert_eq!((near.first, &near.bits[..]), (7, &[1 | 1 << 57 | 1 << 63][..]));
    assert_eq!((&far.numbers[..], far.bits.len()), (&[0, u32::MAX][..], 0));
}

proptest! {
    #[test]
    fn it_contains_what_it_was_made_of(
        numbers in prop_oneof![
            prop::collection::vec(0..200_u32, 0..40),
            prop::collection::vec(any::<u32>(), 0..40),
        ],
        others in prop::collection::vec(prop_oneof![0..260_u32, any::<u32>()], 20),
    ) {
        let list = ModelList::new(numbers.clone());
        prop_assert!(list.bits.len() <= numbers.len());
        for number in numbers.iter().chain(&others) {
            prop_assert_eq!(contains(&list, *number), numbers.contains(number), "{}", number);
        }
    }
}
