//! A network in an ONNX file, run by `tract`, whose plan is an object of its own.
//!
//! A copy for each worker, made from the shared bytes of the file. It costs the size of the plan and its load time, reading and
//! optimizing, at every start of a worker. Threads are better for large networks: with `Executor::Threads` the same op needs one plan,
//! which all threads share. Keep processes if ops may crash, leak or hang.

use std::sync::OnceLock;
use std::time::Instant;

use cookbook::{Copies, Layer, Network, Random, check, finish_threads, workers};
use invoker::{BoxError, Buffer, Executor, Invoker};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use tract_onnx::prelude::{
    Framework as _, InferenceModelExt as _, Tensor, TypedModel, TypedRunnableModel, tvec,
};

type Plan = TypedRunnableModel<TypedModel>;

#[derive(Clone, Serialize, Deserialize)]
struct Onnx {
    file: Buffer<u8>,
    #[serde(skip)]
    plan: OnceLock<std::sync::Arc<Plan>>,
}

impl Onnx {
    fn plan(&self) -> &Plan {
        let load = || {
            tract_onnx::onnx()
                .model_for_read(&mut &*self.file)?
                .into_optimized()?
                .into_runnable()
        };
        self.plan
            .get_or_init(|| load().expect("a network that tract can run").into())
    }
}

/// Makes the plan when the worker starts, so that no task waits for it.
fn load(onnx: &Onnx) -> Result<(), BoxError> {
    onnx.plan();
    Ok(())
}

fn predict(onnx: &Onnx, _: &mut (), input: Vec<f32>) -> Vec<f32> {
    let run = || {
        let input = Tensor::from_shape(&[Network::WIDTH, 1], &input)?;
        let outputs = onnx.plan().run(tvec!(input.into()))?;
        Ok::<_, BoxError>(outputs[0].as_slice::<f32>()?.to_vec())
    };
    run().expect("the shapes fit")
}

/// Returns the network as an ONNX file: a product, `Relu` and a product.
fn onnx(network: &Network) -> Vec<u8> {
    let weights = |(name, layer): (&str, &Layer)| TensorProto {
        name: name.to_owned(),
        dims: vec![layer.outputs() as i64, layer.inputs as i64],
        data_type: DataType::Float as i32,
        raw_data: layer
            .weights
            .iter()
            .flat_map(|weight| weight.to_le_bytes())
            .collect(),
        ..TensorProto::default()
    };
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        name: output.to_owned(),
        op_type: op.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let column = |name: &str| {
        let dimension = |len| Dimension {
            value: Some(dimension::Value::DimValue(len)),
            ..Dimension::default()
        };
        let tensor = type_proto::Tensor {
            elem_type: DataType::Float as i32,
            shape: Some(TensorShapeProto {
                dim: vec![dimension(Network::WIDTH as i64), dimension(1)],
            }),
        };
        ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        }
    };
    let graph = GraphProto {
        name: "network".to_owned(),
        initializer: ["first", "second"]
            .into_iter()
            .zip(&network.layers)
            .map(weights)
            .collect(),
        node: vec![
            node("MatMul", &["first", "input"], "sums"),
            node("Relu", &["sums"], "hidden"),
            node("MatMul", &["second", "hidden"], "output"),
        ],
        input: vec![column("input")],
        output: vec![column("output")],
        ..GraphProto::default()
    };
    let operators = OperatorSetIdProto {
        version: 13,
        ..OperatorSetIdProto::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![operators],
        graph: Some(graph),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(11);
    let network = Network::random(&mut random);
    let inputs = Network::inputs(&mut random, 100);
    let expected: Vec<Vec<f32>> = inputs.iter().map(|input| network.predict(input)).collect();

    // The plan has all weights, and the size of the plan is not known otherwise.
    let bytes = network.bytes();
    let model = Onnx {
        file: onnx(&network).into(),
        plan: OnceLock::new(),
    };
    let builder = Invoker::builder_with_state(load, predict).model(model.clone());
    let start = Instant::now();
    let threads = builder.executor(Executor::Threads).workers(workers()).build()?;
    threads.model().plan();
    let time = start.elapsed();
    let outputs: Vec<Vec<f32>> = threads.map(inputs.clone()).collect::<Result<_, _>>()?;
    assert_eq!(outputs, expected);
    finish_threads("tract", bytes, time, threads)?;

    let processes = Invoker::builder_with_state(load, predict)
        .model(model)
        .workers(workers())
        .build()?;
    let outputs: Vec<Vec<f32>> = processes.map(inputs).collect::<Result<_, _>>()?;
    assert_eq!(outputs, expected);
    check("tract", Copies::PerWorker(bytes), processes)
}
