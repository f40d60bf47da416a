//! Single files through burn's own door: a [`ModuleStore`] over a checkpoint.

use crate::module::{load_module, save_module};
use crate::pack::{PackTensor, Staged, axes};
use burn_store::{ApplyResult, ModuleSnapshot, ModuleStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tensorkeep::{Error, ErrorKind, OpenOptions, Result, Snapshot};

/// The group that [`TensorkeepStore`] saves to.
const GROUP: &str = "model";

/// One file for one module, beside `BurnpackStore` and `SafetensorsStore`: atomic, durable,
/// verified, and loaded all or nothing.
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::Device;
/// use burn_store::ModuleSnapshot;
/// use tensorkeep_burn::TensorkeepStore;
///
/// # let path = std::env::temp_dir().join(format!("tensorkeep-burn-doc-{}.tkeep", std::process::id()));
/// # let device = Device::default();
/// let model: Linear = LinearConfig::new(4, 2).init(&device);
/// model.save_into(&mut TensorkeepStore::at(&path))?; // the old file or the new one, never a mixture
///
/// let mut other: Linear = LinearConfig::new(4, 2).init(&device);
/// other.load_from(&mut TensorkeepStore::at(&path))?;
/// assert_eq!(other.weight.val().into_data(), model.weight.val().into_data());
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
pub struct TensorkeepStore {
    path: PathBuf,
    options: OpenOptions,
    /// What was read of the file, for the calls that lend it.
    tensors: Option<BTreeMap<String, PackTensor>>,
}

impl TensorkeepStore {
    /// The file at this path.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), options: OpenOptions::new(), tensors: None }
    }

    /// How the file is opened. Its budget is that of all tensors together where burn asks for them
    /// without a module to compare them with.
    pub fn options(self, options: OpenOptions) -> Self {
        Self { options, ..self }
    }

    fn read(&mut self) -> Result<&BTreeMap<String, PackTensor>> {
        if self.tensors.is_none() {
            let checkpoint = self.options.open(&self.path)?;
            let (mut tensors, mut bytes) = (BTreeMap::new(), 0_u64);
            for info in checkpoint.tensors() {
                let Some(name) = info.name.strip_prefix("model/") else { continue };
                bytes = bytes.saturating_add(info.byte_len);
                checkpoint
                    .inspect()
                    .check_budget(bytes)
                    .map_err(|error| error.in_object(checkpoint.name()))?;
                let dtype =
                    info.dtype.map_err(|id| Error::new(ErrorKind::NewerVersion, "dtype").found(id))?;
                let mut staged = Staged::new(name.to_owned(), dtype, axes(&info.shape), None)?;
                checkpoint.load_into([(info.name, staged.memory.bytes_mut())])?;
                tensors.insert(name.to_owned(), staged.resident());
            }
            self.tensors = Some(tensors);
        }
        Ok(self.tensors.get_or_insert_default())
    }
}

impl ModuleStore for TensorkeepStore {
    type Error = Error;

    fn collect_from<M: ModuleSnapshot>(&mut self, module: &M) -> Result<()> {
        self.tensors = None;
        save_module(Snapshot::new(), GROUP, module)?.save(&self.path)?;
        Ok(())
    }

    /// Strict: what is missing or unused is an error, and the module is unchanged then.
    fn apply_to<M: ModuleSnapshot>(&mut self, module: &mut M) -> Result<ApplyResult> {
        let report = load_module(&self.options.open(&self.path)?, GROUP, module)?;
        Ok(ApplyResult {
            applied: report.loaded,
            skipped: Vec::new(),
            missing: Vec::new(),
            unused: Vec::new(),
            errors: Vec::new(),
        })
    }

    fn get_tensor(&mut self, name: &str) -> Result<Option<&PackTensor>> {
        Ok(self.read()?.get(name))
    }

    fn get_all_tensors(&mut self) -> Result<&BTreeMap<String, PackTensor>> {
        self.read()
    }

    fn keys(&mut self) -> Result<Vec<String>> {
        Ok(self.read()?.keys().cloned().collect())
    }
}
