"""Every parameter of every common kind of network is in its graph, whatever its state."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from graph_models import MODELS
from graph_networks import EXAMPLES, NETWORKS, Bare, GoogLeNetLike, Tied, gcn, mlp, resnet_like
from torch import nn

from hypergen.conditions.graph import coverage, trace
from hypergen.errors import ConditionError

ALL = {**NETWORKS, **MODELS}
LAYERS = (nn.Linear, nn.Conv2d, nn.Embedding)
WITHOUT_ADAPTER = ("cells", "bare", "norms", "gcn", "gat", "volumes")


def build(name):
    torch.manual_seed(0)
    return ALL[name]()


def lora(model):
    from peft import LoraConfig, get_peft_model

    names = [
        re.escape(n)
        for n, m in model.named_modules()
        if (type(m) in LAYERS or type(m).__name__ == "Conv1D")
        and not n.endswith(("shared", "embed_positions"))  # read without being called
        and type(m).__name__ != "NonDynamicallyQuantizableLinear"
        and getattr(m, "groups", 1) == 1
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of layers that are tied, or kept transposed
        return get_peft_model(model, LoraConfig(r=2, target_modules="|".join(names)))


@pytest.fixture(scope="module", autouse=True)
def _import_pyg():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import compiles with the deprecated torch.jit
        import torch_geometric.nn  # noqa: F401


def test_there_are_at_least_26_architectures():
    assert len(ALL) >= 26


@pytest.mark.parametrize("name", ALL)
def test_all_parameters_are_predicted_plain_and_frozen(name):
    model = build(name)
    plain = trace(model, EXAMPLES.get(name))
    report = coverage(model, graph=plain)
    assert report.counts()["predicted"]["parameters"] == len(list(model.parameters()))
    assert plain.method == "dispatch"
    frozen = model.requires_grad_(False)
    assert trace(frozen, EXAMPLES.get(name), cache=False) == plain


@pytest.mark.parametrize(
    "name",
    [n for n in ALL if n not in ("cells", "bare", "norms", "gcn", "gat", "volumes", "mamba")],
)
def test_all_parameters_are_predicted_with_an_adapter(name):
    model = lora(build(name))
    report = coverage(model, EXAMPLES.get(name))
    assert report.counts()["predicted"]["parameters"] == len(list(model.parameters()))
    adapters = [p for p in report.parameters if ".lora_" in p.name]
    assert adapters
    assert all(p.role for p in adapters)
    assert any(not p.trainable for p in report.parameters)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "vit", "convnext", "swin", "lstm"])
def test_a_model_without_memory_has_the_same_graph(name):
    with torch.device("meta"):
        model = ALL[name]()
    assert trace(model, cache=False) == trace(build(name), cache=False)
    assert all(p.is_meta for p in model.parameters())


def test_a_model_of_billions_is_traced():
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, hidden_size=8192))
    graph = trace(model)
    assert sum(p.numel() for p in model.parameters()) > 1e9
    assert coverage(model, graph=graph).complete


@pytest.mark.parametrize("name", ["resnet", "gpt2", "lstm", "norms", "wav2vec2", "gcn"])
def test_the_module_stays_as_it_is(name):
    model = build(name).train()
    next(model.modules()).requires_grad_(True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    trace(model, EXAMPLES.get(name), cache=False)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("name", ["resnet", "llama", "unet", "detr"])
def test_data_flows_one_way_and_everything_leads_to_the_output(name):
    graph = trace(build(name))
    assert all(e.source < e.target for e in graph.edges)
    reads = {e.source for e in graph.edges}
    assert reads == set(range(len(graph) - 1))
    assert graph.nodes[-1].kind == "output"
    fed = {e.target for e in graph.edges}
    assert all(i in fed for i, _ in graph.of_kind("operation"))


def test_the_graph_of_a_residual_network_is_what_one_draws():
    graph = trace(resnet_like())
    ops = [n.op for n in graph.nodes if n.kind == "operation"]
    block = ["conv2d", "batch_norm", "relu", "conv2d", "batch_norm", "add", "relu"]
    stem, head = ["conv2d", "batch_norm", "relu"], ["global_avg_pool", "linear"]
    assert ops == [*stem, *block * 3, *head]
    assert [[len(c) for c in copies] for copies in graph.blocks.values()] == [[13, 13, 13]]
    add = next(i for i, n in graph.of_kind("operation") if n.op == "add")
    sources = {graph.nodes[e.source].op for e in graph.edges if e.target == add}
    assert sources == {"relu", "batch_norm"}


def test_tied_parameters_are_one_node_with_several_uses():
    graph = trace(Tied())
    assert list(graph.parameters) == ["embedding.weight", "layer.weight", "layer.bias"]
    number = graph.parameters["embedding.weight"]
    assert graph.nodes[number].ties == ("head.weight",)
    assert [(op, slot) for op, slot, _ in graph.uses(number)] == [
        ("embedding", "weight"),
        ("linear", "weight"),
    ]
    assert len(graph.uses(graph.parameters["layer.weight"])) == 2
    assert graph.nodes[graph.parameters["layer.weight"]].ties == ("again.weight",)


def test_parameters_of_no_layer_have_roles_by_use():
    graph = trace(Bare(), (2, 6))
    roles = {graph.nodes[i].name: graph.nodes[i].op for i in graph.parameters.values()}
    assert roles["matrix"] == "linear.weight"
    assert roles["shift"] == "add.parameter"
    assert roles["scale"] == "mul.parameter"
    assert roles["several.0"] == "exp.parameter"


@pytest.mark.parametrize("name", ["gpt2", "llama", "resnet", "mobilenet", "volumes"])
def test_fan_in_is_what_one_output_sums_over(name):
    model = build(name)
    graph = trace(model)
    modules = dict(model.named_modules())
    for number in graph.parameters.values():
        node = graph.nodes[number]
        owner = modules[node.name.rpartition(".")[0]]
        if isinstance(owner, nn.Linear) and node.op == "linear.weight":
            assert node.fan_in == owner.in_features
        elif type(owner).__name__ == "Conv1D" and node.op == "linear.weight":
            assert node.fan_in == node.shape[0]
        elif type(owner) in (nn.Conv2d, nn.Conv3d) and node.op.endswith("weight"):
            assert node.fan_in == owner.weight[0].numel()
        elif len(node.shape) < 2:
            assert node.fan_in is None


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("example", [(2, 4, 6, 6), (4, 6, 6)])
def test_fan_in_of_a_transposed_convolution_is_that_of_its_group(groups, example):
    layer = nn.ConvTranspose2d(4, 8, 3, groups=groups)
    graph = trace(layer, example, cache=False)
    assert graph.nodes[graph.parameters["weight"]].fan_in == 4 // groups * 9


def test_what_only_training_uses_is_found():
    graph = trace(GoogLeNetLike())
    assert "auxiliary.weight" in graph.parameters
    assert not graph.skipped


def test_a_write_into_a_part_of_a_tensor_is_data_flow():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            out = torch.zeros(len(x), 8)
            out[:, :4] = self.first(x)
            out[:, 4:].copy_(self.second(x))
            return out

    graph = trace(Writes())
    assert list(graph.parameters) == [
        f"{n}.{w}" for n in ("first", "second") for w in ("weight", "bias")
    ]


def test_control_flow_over_what_can_be_known_is_followed():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(9, 4)
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

        def forward(self, ids):
            mask = ids > 0
            x = self.embedding(ids)
            x = x * mask.unsqueeze(-1)
            if bool(mask.all()):
                x = self.experts[0](x)
            picked = x[mask]
            return self.experts[1](picked)

    graph = trace(Routed(), {"ids": torch.tensor([[1, 2, 3]])})
    assert "experts.0.weight" in graph.parameters
    graph = trace(Routed(), {"ids": torch.tensor([[1, 0, 3]])})
    assert [s.name for s in graph.skipped] == ["experts.0.weight", "experts.0.bias"]


class ReadsNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else x


def test_control_flow_over_numbers_is_an_error_that_says_where():
    with pytest.raises(ConditionError, match=r"ReadsNumbers.*reads numbers.*pass example="):
        trace(ReadsNumbers())


def test_a_shape_that_does_not_fit_names_the_call_and_what_to_pass():
    with pytest.raises(ConditionError, match=r"in '0' \(Linear\).*linear\(input \[2, 5\].*example"):
        trace(mlp(), (2, 5))


def test_a_network_of_which_nothing_can_be_guessed_asks_for_an_example():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, things):
            return self.weight * things["x"] if len(things) else None

    with pytest.raises(ConditionError, match="pass example="):
        trace(Odd())
    graph = trace(Odd(), {"things": {"x": torch.zeros(2, 3)}})
    assert list(graph.parameters) == ["weight"]


@pytest.mark.parametrize("bad", [3, "x", object()])
def test_what_is_no_module_or_no_example_is_refused(bad):
    with pytest.raises(ConditionError):
        trace(bad)
    with pytest.raises(ConditionError, match="example"):
        trace(mlp(), bad)


def test_lazy_parameters_are_refused():
    with pytest.raises(ConditionError, match=r"lazy.*weight"):
        trace(nn.LazyLinear(3))


@pytest.mark.parametrize("name", ["resnet", "gpt2", "bert", "lstm"])
def test_equal_architectures_share_one_graph_and_others_do_not(name):
    first = trace(build(name))
    assert trace(build(name)) is first
    assert trace(build(name), cache=False) == first
    assert trace(build(name), cache=False).hash == first.hash


def test_the_cache_sees_what_changes_a_graph():
    model = resnet_like()
    graphs = [trace(model)]
    model[3][1].relu = nn.GELU()
    graphs.append(trace(model))
    model[3][2].bn1.eps = 0.1
    assert trace(model).hash == graphs[1].hash
    model[6] = nn.Linear(8, 11)
    graphs.append(trace(model))
    assert len({g.hash for g in graphs}) == 3


def test_a_hook_keeps_a_module_out_of_the_cache():
    model = mlp()
    trace(model)
    model[1].register_forward_hook(lambda module, args, out: out.tanh())
    assert "tanh" in {n.op for n in trace(model).nodes}


def test_a_graph_network_reads_its_edges_as_constants():
    graph = trace(gcn(), (torch.zeros(3, 5), torch.tensor([[0, 1], [1, 2]])))
    assert "scatter_sum" in {n.op for n in graph.nodes}
