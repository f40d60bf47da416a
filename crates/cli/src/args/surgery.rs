//! The values of the flags that change tensors.

use regex_lite::Regex;
use std::fmt;
use tensorkeep::Dtype;

/// A `--rename`.
#[derive(Clone, Debug)]
pub struct Renaming {
    pub pattern: Regex,
    pub new: String,
}

impl Renaming {
    /// Reads `REGEX=>REPLACEMENT`.
    ///
    /// # Errors
    /// Words for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (pattern, new) =
            text.split_once("=>").ok_or("expected REGEX=>REPLACEMENT, such as ^module\\.=>")?;
        let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
        Ok(Self { pattern, new: new.to_owned() })
    }
}

impl fmt::Display for Renaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=>{}", self.pattern, self.new)
    }
}

/// A `--cast`.
#[derive(Clone, Debug)]
pub struct Cast {
    pub dtype: Dtype,
    pub pattern: Option<String>,
}

impl Cast {
    /// Reads `DTYPE` or `DTYPE:GLOB`.
    ///
    /// # Errors
    /// Words for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (dtype, pattern) = text.split_once(':').map_or((text, None), |(dtype, glob)| (dtype, Some(glob)));
        let dtypes = [Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64];
        let dtype = dtypes.into_iter().find(|there| there.name() == dtype);
        let dtype = dtype.ok_or("expected f16, bf16, f32 or f64, with :GLOB for some tensors")?;
        Ok(Self { dtype, pattern: pattern.map(str::to_owned) })
    }
}

impl fmt::Display for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = self.pattern.iter().map(|pattern| format!(":{pattern}")).collect::<String>();
        write!(f, "{}{pattern}", self.dtype.name())
    }
}
