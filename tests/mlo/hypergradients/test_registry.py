"""Methods by name, those of other packages too."""

from __future__ import annotations

import dataclasses
import importlib.metadata

import pytest

import mlo
from mlo import plugins
from mlo.errors import ConfigurationError
from mlo.hypergradients import registry
from mlo.vectors import negative, times

OWN = {
    "conjugate-gradient": mlo.ConjugateGradient,
    "dense": mlo.Dense,
    "direct": mlo.Direct,
    "finite-difference": mlo.FiniteDifference,
    "forward-mode": mlo.ForwardMode,
    "minres": mlo.Minres,
    "neumann": mlo.Neumann,
    "nystrom": mlo.Nystrom,
    "one-step": mlo.OneStep,
    "unrolled": mlo.Unrolled,
    "sama": mlo.Sama,
}


@pytest.fixture(autouse=True)
def _registry_as_before(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


@dataclasses.dataclass(frozen=True)
class Identity(mlo.Hypergradient):
    """A whole method: the Hessian taken to be the identity over `scale`."""

    scale: float = 1.0

    def vjp(self, condition, cotangent, state):
        u = times(cotangent, (self.scale,) * len(cotangent))
        return mlo.Result(negative(condition.mixed_vjp(u)), state)


def test_all_methods_are_there_by_name():
    assert {name: mlo.methods()[name] for name in OWN} == OWN
    assert mlo.make_method("neumann", terms=3, alpha=0.5) == mlo.Neumann(terms=3, alpha=0.5)
    assert mlo.make_method("one-step") == mlo.OneStep()


def test_a_registered_method_is_made_by_name():
    assert mlo.register("identity")(Identity) is Identity
    assert mlo.methods()["identity"] is Identity
    assert mlo.make_method("identity", scale=2.0) == Identity(2.0)
    # Again by the same class, as after a reload: no complaint.
    mlo.register("identity")(Identity)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ConfigurationError, match=r"'neumann' is taken by Neumann"):
        mlo.register("neumann")(Identity)
    assert mlo.methods()["neumann"] is mlo.Neumann


def test_a_class_of_the_same_name_in_another_package_is_another_class():
    other = type("Neumann", (Identity,), {"__module__": "another_package"})
    with pytest.raises(ConfigurationError, match="'neumann' is taken"):
        mlo.register("neumann")(other)
    assert mlo.methods()["neumann"] is mlo.Neumann


@pytest.mark.parametrize("thing", [mlo.Dense(), dict, lambda condition: None])
def test_only_method_classes_can_be_registered(thing):
    with pytest.raises(ConfigurationError, match=r"register\('thing'\).*mlo\.Hypergradient"):
        mlo.register("thing")(thing)


@pytest.mark.parametrize(
    ("wrong", "near"), [("neuman", "neumann"), ("one_step", "one-step"), ("zzz", None)]
)
def test_an_unknown_name_is_answered_by_the_nearest(wrong, near):
    with pytest.raises(ConfigurationError) as caught:
        mlo.make_method(wrong)
    message = str(caught.value)
    assert f"'{wrong}'" in message
    assert all(f"'{name}'" in message for name in OWN)
    assert (f"did you mean '{near}'?" in message) == (near is not None)


@pytest.mark.parametrize(
    ("name", "settings", "culprit"),
    [
        ("neumann", {"term": 3}, "term"),
        ("dense", {"damping": 0.1, "rate": 2}, "rate"),
        ("conjugate-gradient", {"iterations": 0}, "iterations"),
        ("conjugate-gradient", {"iterations": "many"}, "iterations"),
        ("neumann", {"terms": "many"}, "terms"),
        ("neumann", {"terms": 2.5}, "terms"),
        ("finite-difference", {"scheme": "backward"}, "scheme"),
        ("finite-difference", {"radius": -1.0}, "radius"),
        ("sama", {"radius": 0.0}, "radius"),
        ("sama", {"tolerance": -1.0}, "tolerance"),
    ],
)
def test_settings_that_do_not_fit_are_named(name, settings, culprit):
    with pytest.raises(ConfigurationError) as caught:
        mlo.make_method(name, **settings)
    message = str(caught.value)
    assert culprit in message
    assert name in message or OWN[name].__name__ in message


def test_installed_packages_offer_methods(monkeypatch):
    def entry_points(group):
        assert group == "mlo.hypergradients"
        offer = "mlo.hypergradients.direct:Direct"
        return [importlib.metadata.EntryPoint("theirs", offer, group)]

    monkeypatch.setattr(plugins.metadata, "entry_points", entry_points)
    assert mlo.methods()["theirs"] is mlo.Direct
    assert mlo.make_method("theirs") == mlo.Direct()
