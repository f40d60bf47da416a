//! `Snapshot::state` and `Checkpoint::state`: any serde value, its large arrays as tensors, the
//! rest as one record.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use tensorkeep::{Checkpoint, Codec, Dtype, ErrorKind, Snapshot, Tensor, WriteOptions};
use test_support::open;

fn saved_as(mapped: bool, value: &impl Serialize) -> Checkpoint {
    let snapshot = Snapshot::new().state("s", value).unwrap();
    open(&snapshot.to_bytes(&WriteOptions::new().codec(Codec::Raw)).unwrap(), mapped).unwrap()
}

fn saved(value: &impl Serialize) -> Checkpoint {
    saved_as(false, value)
}

/// The value read back, from memory and mapped.
#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) -> Vec<String> {
    for mapped in [false, true] {
        assert_eq!(saved_as(mapped, &value).state::<T>("s").unwrap(), value);
    }
    saved(&value).names().map(str::to_owned).collect()
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Kind {
    Unit,
    Newtype(Vec<f32>),
    Tuple(u8, Vec<i16>),
    Struct { values: Vec<u64>, name: String },
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Copy)]
struct Marker;

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Wide {
    scalars: (bool, i8, i16, i32, i64, u8, u16, u32, u64, char),
    wide: (u128, i128),
    floats: (f32, f64),
    text: String,
    kinds: Vec<Kind>,
    by_number: BTreeMap<u32, Vec<f64>>,
    by_sign: HashMap<i64, bool>,
    options: Vec<Option<Option<Option<u8>>>>,
    units: (Option<()>, Marker, Option<Marker>, ()),
    matrix: Vec<Vec<f32>>,
    cube: Vec<[[i32; 2]; 3]>,
    ragged: Vec<Vec<f64>>,
    flags: Vec<bool>,
    some: Vec<Option<f32>>,
    pairs: Vec<(u8, f32)>,
    empty: Vec<f32>,
    empty_rows: Vec<Vec<f32>>,
}

fn wide() -> Wide {
    Wide {
        scalars: (true, -1, i16::MIN, i32::MIN, i64::MIN, 255, u16::MAX, u32::MAX, u64::MAX, 'é'),
        wide: (u128::MAX, i128::MIN),
        floats: (f32::MIN_POSITIVE, -0.0),
        text: "text".to_owned(),
        kinds: vec![
            Kind::Unit,
            Kind::Newtype(vec![0.5; 300]),
            Kind::Tuple(1, vec![-1; 600]),
            Kind::Struct { values: vec![7; 200], name: "x".to_owned() },
        ],
        by_number: BTreeMap::from([(3, vec![0.25; 200]), (4, vec![])]),
        by_sign: HashMap::from([(-1, true), (1, false)]),
        options: vec![None, Some(None), Some(Some(None)), Some(Some(Some(1)))],
        units: (Some(()), Marker, Some(Marker), ()),
        matrix: (0..40).map(|i| vec![i as f32; 10]).collect(),
        cube: vec![[[1, 2], [3, 4], [5, 6]]; 50],
        ragged: vec![vec![1.0; 200], vec![2.0; 201], vec![3.0]],
        flags: vec![true; 2000],
        some: vec![Some(1.5); 300],
        pairs: vec![(1, 2.0); 3],
        empty: vec![],
        empty_rows: vec![vec![]; 3],
    }
}

#[test]
fn every_kind_of_value_comes_back() {
    let mut names = check(wide());
    names.sort();
    let tensors = [
        "s/by_number.3",
        "s/cube",
        "s/flags",
        "s/kinds.1.Newtype",
        "s/kinds.2.Tuple.1",
        "s/kinds.3.Struct.values",
        "s/matrix",
        "s/ragged.0",
        "s/ragged.1",
        "s/some",
    ];
    assert_eq!(names, tensors);
}

#[test]
fn arrays_have_their_own_dtype_and_shape() {
    let checkpoint = saved(&wide());
    let of = |name: &str| {
        let tensor = checkpoint.tensor(name).unwrap();
        (tensor.dtype(), tensor.shape().to_vec())
    };
    assert_eq!(of("s/matrix"), (Dtype::F32, vec![40, 10]));
    assert_eq!(of("s/cube"), (Dtype::I32, vec![50, 3, 2]));
    assert_eq!(of("s/flags"), (Dtype::Bool, vec![2000]));
    assert_eq!(of("s/kinds.2.Tuple.1"), (Dtype::I16, vec![600]));
    assert_eq!(checkpoint.tensor("s/matrix").unwrap().elements::<f32>().unwrap()[10..20], [1.0; 10]);
}

#[test]
fn a_short_array_stays_in_the_record() {
    assert!(check(vec![1.0_f32; 255]).is_empty());
    assert_eq!(check(vec![1.0_f32; 256]), ["s"]);
    assert!(check(vec![vec![1_u8; 127]; 8]).is_empty());
    assert_eq!(check(vec![vec![1_u8; 128]; 8]), ["s"]);
    assert!(check(vec![u128::MAX; 1000]).is_empty(), "no dtype");
}

#[test]
fn a_state_without_arrays_is_a_plain_record() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Adam {
        lr: f64,
        betas: (f64, f64),
        step: u64,
        kind: Kind,
    }
    let adam = Adam { lr: 1e-3, betas: (0.9, 0.999), step: 3, kind: Kind::Tuple(2, vec![3]) };
    let options = WriteOptions::new();
    let state = Snapshot::new().state("s", &adam).unwrap().to_bytes(&options).unwrap();
    assert!(state == Snapshot::new().record("s", &adam).unwrap().to_bytes(&options).unwrap());
    assert_eq!(open(&state, false).unwrap().record::<Adam>("s").unwrap(), adam);
    assert_eq!(open(&state, false).unwrap().state::<Adam>("s").unwrap(), adam);
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Forced {
    #[serde(with = "tensorkeep::serde::tensor")]
    milestones: Vec<u64>,
    #[serde(with = "tensorkeep::serde::tensor")]
    none: Option<Vec<f32>>,
    #[serde(with = "tensorkeep::serde::tensor")]
    empty: Vec<f32>,
    plain: Vec<u64>,
}

#[test]
fn a_field_can_be_forced_to_be_a_tensor() {
    let forced = || Forced { milestones: vec![30, 60, 90], none: None, empty: vec![], plain: vec![1] };
    assert_eq!(check(forced()), ["s/milestones"]);
    let json = serde_json::to_string(&forced()).unwrap();
    assert_eq!(json, r#"{"milestones":[30,60,90],"none":null,"empty":[],"plain":[1]}"#);
    assert_eq!(serde_json::from_str::<Forced>(&json).unwrap(), forced());
}

#[test]
fn nan_payloads_come_back_bit_for_bit() {
    let bits: Vec<u32> = vec![0x7FC0_0001, 0x7FA0_0000, 0xFFFF_FFFF, 0x8000_0000];
    let all: Vec<u32> = bits.iter().copied().cycle().take(1000).collect();
    for bits in [bits, all] {
        let floats: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let back = saved(&(floats, 1)).state::<(Vec<f32>, u8)>("s").unwrap().0;
        assert!(back.iter().map(|float| float.to_bits()).eq(bits));
    }
}

#[test]
fn random_generators_go_on_where_they_were() {
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let mut chacha = rand_chacha::ChaCha12Rng::seed_from_u64(1);
    let mut pcg = (rand_pcg::Pcg64::seed_from_u64(2), rand_pcg::Pcg64Mcg::seed_from_u64(3));
    // What rand's SmallRng is.
    let mut xoshiro = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(4);
    let _ = (chacha.next_u32(), pcg.0.next_u64(), pcg.1.next_u64(), xoshiro.next_u64());
    let checkpoint = saved(&(chacha.clone(), pcg.clone(), xoshiro.clone()));
    type Generators =
        (rand_chacha::ChaCha12Rng, (rand_pcg::Pcg64, rand_pcg::Pcg64Mcg), rand::rngs::Xoshiro256PlusPlus);
    let (mut chacha2, mut pcg2, mut xoshiro2) = checkpoint.state::<Generators>("s").unwrap();
    for _ in 0..100 {
        assert_eq!(chacha.next_u64(), chacha2.next_u64());
        assert_eq!(pcg.0.next_u64(), pcg2.0.next_u64());
        assert_eq!(pcg.1.next_u64(), pcg2.1.next_u64());
        assert_eq!(xoshiro.next_u64(), xoshiro2.next_u64());
    }
}

#[cfg(feature = "ndarray")]
#[test]
fn an_ndarray_is_a_tensor_under_its_data() {
    let array = ndarray::Array3::from_shape_fn((4, 8, 16), |(a, b, c)| (a * 128 + b * 16 + c) as f32);
    assert_eq!(
        check(BTreeMap::from([("weight", array.clone())].map(|(k, v)| (k.to_owned(), v)))),
        ["s/weight.data"]
    );
    let transposed = array.reversed_axes();
    assert_eq!(saved(&transposed).state::<ndarray::Array3<f32>>("s").unwrap(), transposed);
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Lent<'a> {
    #[serde(with = "serde_bytes")]
    tokens: &'a [u8],
    #[serde(borrow)]
    more: Cow<'a, [u8]>,
    name: &'a str,
    #[serde(borrow, with = "serde_bytes")]
    short: &'a [u8],
}

#[test]
fn a_mapped_checkpoint_lends_bytes_and_text() {
    let (tokens, more) = (vec![7; 5000], vec![8; 5000]);
    let value = Lent { tokens: &tokens, more: Cow::Borrowed(&more), name: "corpus", short: b"abc" };
    let checkpoint = saved_as(true, &value);
    let lent = checkpoint.state::<Lent<'_>>("s").unwrap();
    assert_eq!(lent, value);
    assert!(matches!(lent.more, Cow::Borrowed(_)));
    let tensor = checkpoint.tensor("s/tokens").unwrap();
    assert_eq!(tensor.borrowed().unwrap().as_ptr(), lent.tokens.as_ptr());
    assert_eq!(checkpoint.tensor("s/more").unwrap().dtype(), Dtype::U8);

    let read = saved_as(false, &value);
    let error = read.state::<Lent<'_>>("s").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    let owned = read.state::<(Cow<'_, [u8]>,)>("s");
    assert!(owned.is_err(), "another type altogether");
}

#[test]
fn bytes_and_lists_of_small_numbers_read_as_each_other() {
    for len in [3, 3000] {
        let bytes = serde_bytes::ByteBuf::from(vec![9; len]);
        let list = vec![9_u8; len];
        assert_eq!(saved(&bytes).state::<Vec<u8>>("s").unwrap(), list);
        assert_eq!(saved(&list).state::<serde_bytes::ByteBuf>("s").unwrap(), bytes);
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Untagged {
    Numbers(Vec<f32>),
    Named { data: Vec<u8>, scale: f32 },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Flattened {
    #[serde(flatten)]
    rest: BTreeMap<String, Untagged>,
    #[serde(default)]
    added: u32,
}

#[test]
fn flattened_and_untagged_types_come_back() {
    let rest = BTreeMap::from([
        ("a".to_owned(), Untagged::Numbers(vec![1.0; 500])),
        ("b".to_owned(), Untagged::Named { data: vec![2; 2000], scale: 0.5 }),
        ("c".to_owned(), Untagged::Numbers(vec![])),
    ]);
    assert_eq!(check(Flattened { rest, added: 1 }), ["s/a", "s/b.data"]);
}

/// serde puts such a value into a buffer of its own first, which has no 128-bit integers and reads
/// addresses as text. Saving cannot see that; loading says so.
#[test]
fn what_serdes_own_buffer_lacks_is_an_error() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "kind")]
    enum Tagged<T> {
        One { value: T },
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Plain<T> {
        value: T,
    }
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    check(Plain { value: (u128::MAX, address) });
    check(Tagged::One { value: (vec![0.5_f32; 300], Some(None::<u8>)) });
    let wide = saved(&Tagged::One { value: u128::MAX }).state::<Tagged<u128>>("s").unwrap_err();
    assert!(wide.to_string().contains("u128 is not supported"), "{wide}");
    let address = saved(&Tagged::One { value: address }).state::<Tagged<std::net::IpAddr>>("s");
    assert_eq!(address.unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn any_key_leaves_a_name_for_its_tensor() {
    let long = || vec![1.0_f32; 300];
    let inner = |value| BTreeMap::from([("b".to_owned(), value)]);
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Keys {
        dotted: BTreeMap<String, Vec<f32>>,
        odd: BTreeMap<String, Vec<f32>>,
        nested: BTreeMap<String, BTreeMap<String, Vec<f32>>>,
        flat: BTreeMap<String, Vec<f32>>,
    }
    let keys = Keys {
        dotted: BTreeMap::from([("a.b".to_owned(), long()), ("".to_owned(), long())]),
        odd: BTreeMap::from([("tab\t".to_owned(), long()), ("x".repeat(5000), long())]),
        nested: BTreeMap::from([("a".to_owned(), inner(long())), ("a.b".to_owned(), inner(long()))]),
        flat: BTreeMap::from([("b.b".to_owned(), long())]),
    };
    assert_eq!(check(keys).len(), 7);
    let same = (BTreeMap::from([("x.y".to_owned(), long()), ("#0".to_owned(), long())]), ());
    let both = BTreeMap::from([("x".to_owned(), BTreeMap::from([("y".to_owned(), long())]))]);
    let names = check(((same, both), 1));
    assert_eq!(names.len(), 3);
    let colliding: BTreeMap<String, Colliding> = BTreeMap::from([
        ("a".to_owned(), Colliding::Map(inner(long()))),
        ("a.b".to_owned(), Colliding::List(long())),
    ]);
    assert_eq!(check(colliding), ["s/#1", "s/a.b"]);
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Colliding {
    List(Vec<f32>),
    Map(BTreeMap<String, Vec<f32>>),
}

#[test]
fn an_error_names_the_path() {
    #[derive(Serialize, Deserialize, Debug)]
    struct Outer<T> {
        groups: Vec<T>,
    }
    #[derive(Serialize, Deserialize, Debug)]
    struct Text {
        lr: String,
    }
    #[derive(Serialize, Deserialize, Debug)]
    struct Number {
        lr: f64,
    }
    let checkpoint = saved(&Outer { groups: vec![Text { lr: "1e-3".to_owned() }] });
    let error = checkpoint.state::<Outer<Number>>("s").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("record s: groups.0.lr: invalid type: string"), "{error}");

    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let error = Snapshot::new().state("s", &BTreeMap::from([("a", (1, Refuses))])).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Invalid, "record s: a.1: no"));
    let error = saved(&vec![1.0_f32; 400]).state::<[f32; 3]>("s").unwrap_err();
    assert!(error.to_string().contains("an array of 400 elements, of which the type takes 3"), "{error}");
    let error = saved(&vec!["a"; 4]).state::<(String, String)>("s").unwrap_err();
    assert!(error.to_string().contains("a list of 4 items, of which the type takes 2"), "{error}");
}

#[test]
fn composite_keys_and_deep_values_are_refused() {
    let error = Snapshot::new().state("s", &BTreeMap::from([((1, 2), 3)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = Snapshot::new().state("tensorkeep.x", &1).unwrap_err();
    assert!(error.to_string().contains("reserved"), "{error}");
    let mut deep = serde_json::json!(1);
    for _ in 0..40 {
        deep = serde_json::json!({ "a": deep });
    }
    assert!(Snapshot::new().state("s", &deep).unwrap_err().to_string().contains("nesting"));
}

/// As `state` writes the name of the tensor `s/x` into the record `s`.
#[derive(Serialize, Clone)]
#[serde(rename = "_ExtStruct")]
struct Ext((i8, serde_bytes::ByteBuf));

fn ext(kind: i8) -> Ext {
    Ext((kind, serde_bytes::ByteBuf::from(b"x".to_vec())))
}

/// A record that names a tensor, as `state` would write it, beside the given tensor.
fn forged(kind: i8, tensor: Option<Tensor<'_>>) -> Checkpoint {
    let mut snapshot = Snapshot::new().record("s", &ext(kind)).unwrap();
    if let Some(tensor) = tensor {
        snapshot = snapshot.tensor("s/x", tensor).unwrap();
    }
    open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), false).unwrap()
}

#[test]
fn a_record_that_lies_about_its_tensors_is_an_error() {
    // [R146] [R148]
    let kind_of = |kind, tensor| forged(kind, tensor).state::<Vec<f32>>("s").unwrap_err().kind();
    let of = |dtype, shape: &[usize], bytes| Some(Tensor::new(dtype, shape, bytes).unwrap());
    assert_eq!(kind_of(1, None), ErrorKind::NotFound);
    assert_eq!(kind_of(1, of(Dtype::F32, &[], &[0; 4])), ErrorKind::Damaged);
    assert_eq!(kind_of(1, of(Dtype::F32, &[1 << 40, 0], &[])), ErrorKind::Damaged);
    assert_eq!(kind_of(2, of(Dtype::F32, &[1], &[0; 4])), ErrorKind::Damaged);
    assert_eq!(kind_of(1, of(Dtype::Bf16, &[1], &[0; 2])), ErrorKind::Unsupported);
    assert_eq!(kind_of(1, of(Dtype::Bool, &[1], &[2])), ErrorKind::Damaged);
    assert_eq!(kind_of(9, of(Dtype::F32, &[1], &[0; 4])), ErrorKind::Mismatch);
    assert_eq!(forged(1, of(Dtype::F32, &[1], &[0; 4])).state::<Vec<f32>>("s").unwrap(), [0.0]);
    assert_eq!(forged(1, of(Dtype::F32, &[0], &[])).state::<Vec<f32>>("s").unwrap(), [0.0; 0]);
    let none = forged(3, None).state::<Option<Option<u8>>>("s").unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Mismatch, "b'x' is how many options there are");
}

/// Each is a copy, of as many bytes as the tensor has, for a few bytes of a record that compresses.
#[test]
fn a_record_that_names_a_tensor_twice_is_damaged() {
    // [R145]
    let twice = Snapshot::new().record("s", &[ext(1), ext(1)]).unwrap();
    let snapshot = twice.tensor("s/x", &[0.5_f32; 4]).unwrap();
    let checkpoint = open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), false).unwrap();
    let error = checkpoint.state::<Vec<Vec<f32>>>("s").unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("s/x")), "{error}");
}

/// serde's own conversions would round, silently.
#[test]
fn a_number_is_read_exactly_or_not_at_all() {
    fn read<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, String> {
        saved(value).state::<T>("s").map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
            error.to_string()
        })
    }
    assert_eq!(read::<f32>(&0.5_f64), Ok(0.5));
    assert_eq!(read::<f32>(&3_u8), Ok(3.0));
    assert_eq!(read::<f64>(&i64::MIN), Ok(i64::MIN as f64));
    assert_eq!(read::<f64>(&0.1_f32), Ok(f64::from(0.1_f32)));
    assert_eq!(read::<f32>(&f64::INFINITY), Ok(f32::INFINITY));
    assert!(read::<f32>(&f64::NAN).unwrap().is_nan());
    let error = read::<BTreeMap<String, f32>>(&BTreeMap::from([("lr", 0.1_f64)])).unwrap_err();
    assert!(error.contains("lr: the f64 0.1 is no f32: it would be rounded"), "{error}");
    for error in [
        read::<f32>(&1e300_f64).err(),
        read::<f32>(&((1 << 24) + 1)).err(),
        read::<f32>(&u64::MAX).err(),
        read::<f64>(&u64::MAX).err(),
        read::<f64>(&(i64::MIN + 1)).err(),
    ] {
        assert!(error.unwrap().contains("it would be rounded"));
    }
    // The elements of a tensor, likewise.
    assert_eq!(read::<Vec<f32>>(&vec![0.5_f64; 300]), Ok(vec![0.5; 300]));
    assert_eq!(read::<Vec<f64>>(&vec![7_u64; 300]), Ok(vec![7.0; 300]));
    for error in [
        read::<Vec<f32>>(&vec![0.1_f64; 300]).err(),
        read::<Vec<Option<f32>>>(&vec![u32::MAX; 300]).err(),
        read::<Vec<[f64; 1]>>(&vec![[u64::MAX]; 300]).err(),
        read::<Vec<f32>>(&vec![i64::MIN + 1; 300]).err(),
    ] {
        assert!(error.unwrap().contains("it would be rounded"));
    }
}

#[test]
fn a_tensor_that_the_type_leaves_out_is_not_read() {
    #[derive(Deserialize)]
    struct Part {
        text: String,
    }
    let checkpoint = saved(&wide());
    assert_eq!(checkpoint.state::<Part>("s").unwrap().text, "text");
}

/// A float with bitwise equality.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Bits(u32);

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f32(f32::from_bits(self.0))
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f32::deserialize(deserializer).map(|float| Self(float.to_bits()))
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Tree {
    Unit,
    Marker(Marker),
    Floats(Vec<Bits>),
    Rows(Vec<Vec<i64>>),
    Mixed(u128, char, Option<Option<bool>>, f64),
    Bytes { short: Vec<u8>, long: serde_bytes::ByteBuf, text: String },
    Map(BTreeMap<i32, Tree>),
    List(Vec<Tree>),
    Option(Option<Option<Box<Tree>>>),
    Pair(Box<(Tree, Vec<Option<u16>>)>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let rows = vec(vec(any::<i64>(), 0..3), 0..5);
    let regular = (1..4_usize, 0..80_usize).prop_map(|(len, count)| vec![vec![-1; len]; count]);
    let leaf = prop_oneof![
        Just(Tree::Unit),
        Just(Tree::Marker(Marker)),
        vec(any::<u32>().prop_map(Bits), 0..600).prop_map(Tree::Floats),
        prop_oneof![rows, regular].prop_map(Tree::Rows),
        (any::<u128>(), any::<char>(), any::<Option<Option<bool>>>(), -1e300..1e300)
            .prop_map(|(a, b, c, d)| Tree::Mixed(a, b, c, d)),
        (vec(any::<u8>(), 0..2000), vec(any::<u8>(), 0..2000), "[a-zé]{0,40}").prop_map(
            |(short, long, text)| Tree::Bytes { short, long: serde_bytes::ByteBuf::from(long), text }
        ),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            btree_map(any::<i32>(), inner.clone(), 0..4).prop_map(Tree::Map),
            vec(inner.clone(), 0..4).prop_map(Tree::List),
            prop_oneof![
                Just(None),
                Just(Some(None)),
                inner.clone().prop_map(|tree| Some(Some(Box::new(tree))))
            ]
            .prop_map(Tree::Option),
            (inner, vec(any::<Option<u16>>(), 0..700)).prop_map(|pair| Tree::Pair(Box::new(pair))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn generated_types_come_back(tree in trees()) {
        for mapped in [false, true] {
            prop_assert_eq!(saved_as(mapped, &tree).state::<Tree>("s").unwrap(), tree.clone());
        }
    }

    #[test]
    fn arbitrary_records_never_panic(bytes in vec(any::<u8>(), 0..60)) {
        // A map as a key is read as a value here, and refused by the writer.
        if let Ok(value) = rmp_serde::from_slice::<tensorkeep::Value>(&bytes)
            && let Ok(snapshot) = Snapshot::new().state("s", &value)
        {
            let bytes = snapshot.to_bytes(&WriteOptions::new()).unwrap();
            let checkpoint = open(&bytes, false).unwrap();
            let _ = checkpoint.state::<Tree>("s");
            let _ = checkpoint.state::<Wide>("s");
        }
    }
}
