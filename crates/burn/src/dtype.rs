//! Which of the two libraries' dtypes are the same. What the other one lacks is an error by its
//! name, and never converted.

use burn_core::tensor::{BoolStore, DType};
use tensorkeep::{Dtype, Error, ErrorKind, Result};

const PAIRS: [(Dtype, DType); 13] = [
    (Dtype::Bool, DType::Bool(BoolStore::Native)),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::U16, DType::U16),
    (Dtype::I16, DType::I16),
    (Dtype::U32, DType::U32),
    (Dtype::I32, DType::I32),
    (Dtype::U64, DType::U64),
    (Dtype::I64, DType::I64),
    (Dtype::F16, DType::F16),
    (Dtype::Bf16, DType::BF16),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
];

fn names() -> String {
    PAIRS.map(|(dtype, _)| dtype.name()).join(", ")
}

/// The dtype that a tensor of burn has in a checkpoint.
///
/// # Errors
/// `Unsupported` for quantized tensors, for `flex32`, and for bools that are stored as integers.
pub fn of_burn(dtype: DType) -> Result<Dtype> {
    PAIRS.iter().find(|(_, theirs)| *theirs == dtype).map(|(ours, _)| *ours).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "dtype of a burn tensor")
            .expected(format!("one of {}", names()))
            .found(format!("{dtype:?}"))
            .help("cast the module before it is saved")
    })
}

/// The dtype that a checkpoint's tensor has in burn.
///
/// # Errors
/// `Unsupported` for a dtype that burn lacks: complex numbers and the 8-bit floats.
pub fn in_burn(dtype: Dtype) -> Result<DType> {
    PAIRS.iter().find(|(ours, _)| *ours == dtype).map(|(_, theirs)| *theirs).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "dtype that burn lacks")
            .expected(format!("one of {}", names()))
            .found(dtype)
            .help("write it in another one: `tensorkeep edit --cast`, or Tensor::cast")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_agree_and_every_other_dtype_is_an_error_by_name() {
        let mut refused = 0;
        for &dtype in Dtype::ALL {
            match in_burn(dtype) {
                Ok(theirs) => {
                    assert_eq!(theirs.size(), dtype.size());
                    assert_eq!(of_burn(theirs).unwrap(), dtype);
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(
                        (error.kind(), error.found_value()),
                        (ErrorKind::Unsupported, Some(dtype.name()))
                    );
                }
            }
        }
        assert_eq!(refused, Dtype::ALL.len() - PAIRS.len());
        assert!(of_burn(DType::Flex32).unwrap_err().to_string().contains("Flex32"));
    }
}
