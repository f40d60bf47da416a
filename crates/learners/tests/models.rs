//! Fitted models of other crates are saved and loaded as they are, and predict the same.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_clustering::KMeans;
use ndarray::Array2;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smartcore::ensemble::random_forest_classifier::RandomForestClassifier;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::linear_regression::LinearRegression;
use tensorkeep::{Checkpoint, Snapshot, WriteOptions};

fn through_a_file<T: Serialize + DeserializeOwned>(model: &T) -> (T, Checkpoint) {
    let bytes = Snapshot::new().state("model", model).unwrap().to_bytes(&WriteOptions::new()).unwrap();
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
    (checkpoint.state("model").unwrap(), checkpoint)
}

/// Points of three clouds.
fn points() -> Vec<Vec<f64>> {
    let noise = |i: usize| ((i as f64 * 0.737).sin() * 43_758.545).fract();
    (0..300).map(|i| (0..50).map(|j| (i % 3 * 10) as f64 + noise(i * 50 + j)).collect()).collect()
}

#[test]
fn linfas_clusters_are_a_state() {
    let points = points();
    let records = Array2::from_shape_fn((300, 50), |(i, j)| points[i][j]);
    let model = KMeans::params(3).fit(&DatasetBase::from(records.clone())).unwrap();
    let (loaded, checkpoint) = through_a_file(&model);
    assert_eq!(loaded.centroids(), model.centroids());
    assert_eq!(loaded.predict(&records), model.predict(&records));
    let centroids = checkpoint.names().map(|name| checkpoint.tensor(name).unwrap().len());
    assert!(centroids.into_iter().any(|len| len == 3 * 50), "{:?}", checkpoint.names().collect::<Vec<_>>());
}

#[test]
fn smartcores_forest_and_regression_are_states() {
    let points = points();
    let x = DenseMatrix::from_2d_vec(&points).unwrap();
    let kinds: Vec<i32> = (0..300).map(|i| i % 3).collect();
    let forest = RandomForestClassifier::fit(&x, &kinds, Default::default()).unwrap();
    let (loaded, _) = through_a_file(&forest);
    assert_eq!(loaded.predict(&x).unwrap(), forest.predict(&x).unwrap());
    let sums: Vec<f64> = points.iter().map(|point| point.iter().sum()).collect();
    let line = LinearRegression::fit(&x, &sums, Default::default()).unwrap();
    let (loaded, _) = through_a_file(&line);
    assert_eq!(loaded.predict(&x).unwrap(), line.predict(&x).unwrap());
}
