//! Which of the two libraries' dtypes are the same. What the other one lacks is an error by its
//! name, and never converted.

use candle_core::DType;
use tensorkeep::{Dtype, Error, ErrorKind, Result, TensorInfo};

const PAIRS: [(Dtype, DType); 9] = [
    (Dtype::U8, DType::U8),
    (Dtype::I16, DType::I16),
    (Dtype::U32, DType::U32),
    (Dtype::I32, DType::I32),
    (Dtype::I64, DType::I64),
    (Dtype::F16, DType::F16),
    (Dtype::Bf16, DType::BF16),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
];

fn names() -> String {
    PAIRS.map(|(dtype, _)| dtype.name()).join(", ")
}

/// The dtype that a candle tensor has in a checkpoint.
///
/// # Errors
/// `Unsupported` for candle's 8-bit floats and the packed ones.
pub fn of_candle(dtype: DType) -> Result<Dtype> {
    PAIRS.iter().find(|(_, theirs)| *theirs == dtype).map(|(ours, _)| *ours).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "dtype of a candle tensor")
            .expected(format!("one of {}", names()))
            .found(dtype.as_str())
            .help("convert it with Tensor::to_dtype before it is saved")
    })
}

/// The dtype that a checkpoint's tensor has in candle.
///
/// # Errors
/// `Unsupported` for a dtype that candle lacks: `bool`, `i8`, `u16`, `u64`, complex numbers, the
/// 8-bit floats.
pub fn in_candle(dtype: Dtype) -> Result<DType> {
    PAIRS.iter().find(|(ours, _)| *ours == dtype).map(|(_, theirs)| *theirs).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "dtype that candle lacks")
            .expected(format!("one of {}", names()))
            .found(dtype)
            .help("write it in another one: `tensorkeep edit --cast`, or Tensor::cast")
    })
}

/// The dtype of an entry of the index, in candle.
///
/// # Errors
/// As [`in_candle`]; `NewerVersion` for an id that this version does not know.
pub(crate) fn of_entry(info: &TensorInfo<'_>) -> Result<DType> {
    match info.dtype {
        Ok(dtype) => in_candle(dtype),
        Err(id) => Err(Error::new(ErrorKind::NewerVersion, "dtype").found(format!("id {id}"))),
    }
    .map_err(|error| error.in_tensor(info.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_agree_and_every_other_dtype_is_an_error_by_name() {
        let mut refused = 0;
        for &dtype in Dtype::ALL {
            match in_candle(dtype) {
                Ok(theirs) => {
                    assert_eq!(theirs.size_in_bytes(), dtype.size());
                    assert_eq!(of_candle(theirs).unwrap(), dtype);
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.kind(), ErrorKind::Unsupported);
                    assert_eq!(error.found_value(), Some(dtype.name()));
                }
            }
        }
        assert_eq!(refused, Dtype::ALL.len() - PAIRS.len());
        assert!(of_candle(DType::F8E4M3).unwrap_err().to_string().contains("f8e4m3"));
    }
}
