//! A network for `candle`, whose weights are buffers, `Buffer<f32>`.
//!
//! One copy: a `CustomOp1` multiplies by the weights where they are. The activations and all other operations are candle's.
//!
//! A copy for each worker: a `Tensor` owns its memory, so each worker makes tensors of the shared weights, when it starts. In return,
//! candle's fast kernels multiply them. Threads are better for large networks: with `Executor::Threads` the same op needs one set of
//! tensors for all workers, and no worker that is started again has to make them. Keep processes if ops may crash, leak or hang.

use std::sync::OnceLock;
use std::time::Instant;

use candle_core::{CpuStorage, CustomOp1, Device, Error, Layout, Shape, Tensor, bail};
use cookbook::{Copies, Layer, Network, Random, check, finish_threads, workers};
use invoker::{BoxError, Executor, Invoker};
use serde::{Deserialize, Serialize};

/// Multiplies by the weights of a layer, which stay where they are.
struct Linear<'m>(&'m Layer);

impl CustomOp1 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(Error::RequiresContiguous { op: self.name() }.bt());
        };
        let input = &storage.as_slice::<f32>()?[start..end];
        if input.len() != self.0.inputs {
            bail!("{} inputs for a layer of {}", input.len(), self.0.inputs);
        }
        let outputs: Vec<f32> = self.0.multiply(input).collect();
        let shape = Shape::from(outputs.len());
        Ok((CpuStorage::F32(outputs), shape))
    }
}

fn predict(network: &Network, input: Vec<f32>) -> Vec<f32> {
    let [first, second] = &network.layers;
    let run = || {
        let input = Tensor::from_vec(input, Network::WIDTH, &Device::Cpu)?;
        let hidden = input.apply_op1_no_bwd(&Linear(first))?.relu()?;
        hidden.apply_op1_no_bwd(&Linear(second))?.to_vec1()
    };
    run().expect("the shapes fit")
}

/// The network, with tensors that are copies of its weights.
#[derive(Clone, Serialize, Deserialize)]
struct WithTensors {
    network: Network,
    #[serde(skip)]
    tensors: OnceLock<[Tensor; 2]>,
}

impl WithTensors {
    fn tensors(&self) -> &[Tensor; 2] {
        let tensor = |layer: &Layer| {
            let shape = (layer.outputs(), layer.inputs);
            Tensor::from_slice(&layer.weights, shape, &Device::Cpu).expect("whole rows")
        };
        self.tensors
            .get_or_init(|| self.network.layers.each_ref().map(tensor))
    }
}

/// Makes the tensors when the worker starts, so that no task waits for them.
fn load(model: &WithTensors) -> Result<(), BoxError> {
    model.tensors();
    Ok(())
}

fn predict_with_tensors(model: &WithTensors, _: &mut (), input: Vec<f32>) -> Vec<f32> {
    let [first, second] = model.tensors();
    let run = || {
        let input = Tensor::from_vec(input, (1, Network::WIDTH), &Device::Cpu)?;
        let hidden = input.matmul(&first.t()?)?.relu()?;
        hidden.matmul(&second.t()?)?.flatten_all()?.to_vec1()
    };
    run().expect("the shapes fit")
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(10);
    let network = Network::random(&mut random);
    let inputs = Network::inputs(&mut random, 100);
    let expected: Vec<Vec<f32>> = inputs.iter().map(|input| network.predict(input)).collect();
    let bytes = network.bytes();

    let builder = Invoker::builder(predict).model(network.clone());
    let invoker = builder.workers(workers()).build()?;
    let outputs: Vec<Vec<f32>> = invoker.map(inputs.clone()).collect::<Result<_, _>>()?;
    assert_eq!(outputs, expected);
    check("candle, buffers", Copies::One, invoker)?;

    let model = WithTensors {
        network,
        tensors: OnceLock::new(),
    };
    let builder = Invoker::builder_with_state(load, predict_with_tensors).model(model.clone());
    let start = Instant::now();
    let threads = builder.executor(Executor::Threads).workers(workers()).build()?;
    threads.model().tensors();
    let time = start.elapsed();
    let outputs: Vec<Vec<f32>> = threads.map(inputs.clone()).collect::<Result<_, _>>()?;
    assert_eq!(outputs, expected);
    finish_threads("candle, tensors", bytes, time, threads)?;

    let processes = Invoker::builder_with_state(load, predict_with_tensors)
        .model(model)
        .workers(workers())
        .build()?;
    let outputs: Vec<Vec<f32>> = processes.map(inputs).collect::<Result<_, _>>()?;
    assert_eq!(outputs, expected);
    check("candle, tensors", Copies::PerWorker(bytes), processes)
}
