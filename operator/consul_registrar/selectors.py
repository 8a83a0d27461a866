"""Label selectors as Kubernetes defines them (k8s.io/apimachinery/pkg/labels): which labels a selector takes."""

from collections.abc import Mapping

from consul_registrar.api.selector import Selector, SelectorRequirement


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether all requirements hold for these labels."""
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    return not selector.match_expressions or all(_holds(each, labels) for each in selector.match_expressions)


def _holds(requirement: SelectorRequirement, labels: Mapping[str, str]) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":  # also where the label is missing, as in Kubernetes
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case "DoesNotExist":
            return requirement.key not in labels
