"""What a network shows in a notebook: the boxes that `_repr_html_` draws."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

import fastlayer as fl

EVIL = "<script>alert('1 & \"2\"')</script>"


def parse(part):
    """The element of a diagram, which holds text and boxes and nothing that acts or loads."""
    html = part._repr_html_()
    root = ET.fromstring(html)
    assert {e.tag for e in root.iter()} <= {"div", "span", "b", "style"}
    assert {key for e in root.iter() for key in e.keys()} <= {"class"}  # noqa: SIM118  # no dict
    style = root.find("style").text
    assert not re.search(r"url|import|expression|http|@", style)
    assert not re.search(r"(?<!-)color:(?!color-mix|currentColor|rgba)|#[0-9a-f]{3}", style)
    assert "<script" not in html
    return root


def kind(element):
    names = (element.get("class") or "").split()
    return next(
        (n[3:] for n in ("fl-box", "fl-frame", "fl-end", "fl-join", "fl-row") if n in names), ""
    )


def text(element):
    return " ".join("".join(element.itertext()).split())


def drawn(element):
    """What is drawn, from the top: texts of boxes; of frames, their title and what is inside."""
    found = []
    for child in element:
        what = kind(child)
        if what == "box":
            found.append(tuple(text(cell) for cell in child) or text(child))
        elif what == "frame":
            found.append({text(child[0]): drawn(child)})
        elif what == "row":
            found.append([drawn(arm) for arm in child])
        elif what:
            found.append(text(child))
    return found


def column(part):
    """What lies between inputs and outputs, and these."""
    [inputs, *between, outputs] = drawn(parse(part)[2])
    return [name for [name] in inputs], between, [name for [name] in outputs]


def test_a_box_a_layer():
    net = fl.Network([fl.Layer(784, 512, "relu"), fl.BatchNorm(512), fl.Layer(512, 10), "softmax"])
    assert text(parse(net)[1]) == "Network 784 → 10 · 407,050 parameters · float32"
    assert column(net) == (
        ["784 features"],
        [
            ("0 Layer", "784 → 512", "relu", "401,920 parameters"),
            ("1 BatchNorm", "512 → 512"),
            ("2 Layer", "512 → 10", "", "5,130 parameters"),
            ("3 softmax", "10 → 10"),
        ],
        ["10 features"],
    )


def test_branches_inputs_and_outputs():
    net = fl.Network(
        [
            fl.Concat([[fl.Slice(0, 8), fl.Layer(8, 64, "tanh")], fl.Slice(8, 10)]),
            fl.Multiply([fl.Layer(66, 4), fl.Layer(66, 4, "sigmoid")]),
            fl.Residual(fl.LayerNorm(4), fl.Network([fl.Layer(4, 4, bias=False)])),
            fl.Add([[], "relu"]),
        ],
        inputs={"state": 8, "action": 2},
        outputs={"mean": 3, "score": 1},
    )
    inputs, between, outputs = column(net)
    assert inputs == ["state 8", "action 2"]
    assert outputs == ["mean 3", "score 1"]
    assert between == [
        {
            "0 Concat 10 → 66": [
                [
                    [
                        ("Slice(0, 8)", "10 → 8"),
                        ("Layer", "8 → 64", "tanh", "576 parameters"),
                    ],
                    [("Slice(8, 10)", "10 → 2")],
                ],
                "concat",
            ]
        },
        {
            "1 Multiply 66 → 4": [
                [
                    [("Layer", "66 → 4", "", "268 parameters")],
                    [("Layer", "66 → 4", "sigmoid", "268 parameters")],
                ],
                "×",  # noqa: RUF001
            ]
        },
        {
            "2 Residual 4 → 4": [
                [
                    [
                        ("LayerNorm", "4 → 4"),
                        {"Network 4 → 4": [("Layer", "4 → 4", "", "16 parameters")]},
                    ],
                    [],
                ],
                "+",
            ]
        },
        {"3 Add 4 → 4": [[[], [("relu", "4 → 4")]], "+"]},
    ]


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        ([fl.Flatten(), fl.Layer(6, 2)], ["? → 6", "6 → 2"]),
        (["relu", fl.Layer(6, 2)], ["6 → 6", "6 → 2"]),
        (["relu", fl.Slice(0, 3)], ["? → ?", "? → 3"]),
        ([fl.Layer(6, 2), lambda x: x, fl.Layer(4, 1)], ["6 → 2", "2 → ?", "4 → 1"]),
    ],
)
def test_sizes_that_are_not_known(layers, sizes):
    assert [box[1] for box in column(fl.Network(layers))[1]] == sizes


def test_parts_that_hold_others_are_drawn_and_layers_are_not():
    part = fl.Residual(fl.Layer(4, 4, "relu"))
    assert column(part)[1] == [
        {"0 Residual 4 → 4": [[[("Layer", "4 → 4", "relu", "20 parameters")], []], "+"]}
    ]
    assert column(fl.Concat([fl.Layer(4, 4), []]))[2] == ["8 features"]
    # None: a notebook prints the repr.
    assert fl.Layer(4, 4)._repr_html_() is fl.LayerNorm(4)._repr_html_() is None


def test_what_a_network_has_of_its_source_is_said(tmp_path):
    net = fl.Network([fl.Layer(4, 3, dtype="float64")], outputs={"label": 3})
    state = net.__getstate__()
    state["traits"] = ("one row", "any dtype")
    state["outputs"] = (*state["outputs"][:2], (fl.network.ends.Classes((1, 2, 5), False),))
    net.__setstate__(state)
    assert text(parse(net)[1]) == "Network 4 → 3 · 15 parameters · float64 · one row · any dtype"
    assert column(net)[2] == ["label label of 3"]
    net.save(tmp_path / "a.npz")
    assert fl.load(tmp_path / "a.npz")._repr_html_() == net._repr_html_()


def named(name):
    def function(x):
        return x

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (EVIL[:40], EVIL[:40]),
        ("]]>&lt;!--<b/>", "]]>&lt;!--<b/>"),
        ("\x00\x1b[31m\u202e\n\ud800\uffff", "�" * 2 + "[31m" + "�" * 4),
        ("n" * 41, "n" * 39 + "…"),
        ("層" * 40, "層" * 40),
    ],
)
def test_names_are_text_whatever_they_are(name, shown):
    net = fl.Network(
        [fl.Layer(4, 3, named(name)), named(name), fl.Layer(3, 3)],
        inputs={name: 3, "b": 1},
        outputs={name: 2, "c": 1},
    )
    inputs, between, outputs = column(net)
    assert (inputs[0], outputs[0]) == (f"{shown} 3", f"{shown} 2")
    assert between[0] == ("0 Layer", "4 → 3", shown, "15 parameters")
    assert between[1] == (f"1 {shown}", "3 → ?")


def deep(levels):
    part = fl.Layer(4, 4)
    for _ in range(levels):
        part = fl.Residual(part)
    return part


def bushy(levels, before=0):
    part = fl.Layer(4, 4)
    for _ in range(levels):
        part = fl.Add([[]] * before + [[part] * 5] * 5)
    return part


LARGE = {
    "deep": lambda: [fl.Layer(4, 4, "relu")] * 5000,
    "inside": lambda: [fl.Residual([fl.Layer(4, 4, "relu")] * 5000)],
    "wide": lambda: [fl.Add([fl.Layer(4, 4)] * 1000)],
    "nested": lambda: [deep(60)],
    "bushy": lambda: [bushy(3)] * 20,
    "late": lambda: [bushy(3, before=6)] * 20,
    "blocks": lambda: [fl.Residual(fl.LayerNorm(4), fl.Layer(4, 4))] * 500,
    "names": lambda: [fl.Add([named("<'" * 10**5)] * 6)] * 500,
}


@pytest.mark.parametrize("name", LARGE)
def test_how_much_is_shown_has_a_bound(name):
    ends = {f"{i}{EVIL * 3}"[:200]: 1 for i in range(4)}
    net = fl.Network(LARGE[name](), inputs=ends, outputs=ends)
    assert len(ET.tostring(parse(net))) < 100_000
    assert len(net._repr_html_()) < 100_000


def test_what_is_not_shown_is_counted():
    net = fl.Network([fl.Layer(4, 4, "relu")] * 52)
    boxes = column(net)[1]
    assert [box[0] for box in boxes[:6] + boxes[7:]] == [
        f"{i} Layer" for i in [*range(6), *range(46, 52)]
    ]
    assert boxes[6] == "... 40 more layers, 800 parameters"
    [arms, _] = column(fl.Add([fl.Layer(4, 4)] * 9))[1][0]["0 Add 4 → 4"]
    assert [len(arm) for arm in arms] == [1] * 5
    assert arms[2] == ["... 5 more branches, 100 parameters"]
    names = column(fl.Network([fl.Layer(50, 1)], inputs=[1] * 50))[0]
    assert names[4] == "... 42 more"
    assert len(names) == 9


def test_what_has_no_room_is_one_box():
    [frame] = column(deep(6))[1]
    for _ in range(4):
        [(_, [[[frame], _], _])] = frame.items()
    assert frame == ("Residual", "4 → 4", "2 branches", "20 parameters")
    blocks = [fl.Network([fl.Layer(4, 4)] * 8) for _ in range(12)]
    shown = column(fl.Network([fl.Network(blocks[:8]), fl.Network(blocks)]))[1]
    [[*first], [*second]] = (frame for part in shown for frame in part.values())
    assert all(isinstance(inner, dict) for inner in first)
    assert second[-1] == ("Network", "4 → 4", "8 layers", "160 parameters")


def test_the_repr_stays():
    net = fl.Network([fl.Layer(2, 1, "relu")])
    assert repr(net) == "Network([\n    Layer(2, 1, activation='relu', dtype=float32),\n])"
