package main

import (
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appsconfig "k8s.io/client-go/applyconfigurations/apps/v1"
	coreconfig "k8s.io/client-go/applyconfigurations/core/v1"
	metaconfig "k8s.io/client-go/applyconfigurations/meta/v1"
)

// applied goes through server-side apply with the generated configurations.
func applied(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	maps := clients.CoreV1().ConfigMaps(namespace)
	mine := metav1.ApplyOptions{FieldManager: "mine"}
	one := coreconfig.ConfigMap("a", namespace).WithData(map[string]string{"k": "1", "l": "1"})
	made, err := maps.Apply(t, one, mine)
	t.Must(err, "apply what is not there")
	t.Want(made.Data["k"] == "1" && len(made.ManagedFields) == 1 && made.ManagedFields[0].Operation == metav1.ManagedFieldsOperationApply,
		"applied to %v", made)
	same, err := maps.Apply(t, one, mine)
	t.Must(err, "apply again")
	t.Want(same.ResourceVersion == made.ResourceVersion, "applying the same wrote something")
	theirs := coreconfig.ConfigMap("a", namespace).WithData(map[string]string{"k": "2"})
	_, err = maps.Apply(t, theirs, metav1.ApplyOptions{FieldManager: "theirs"})
	t.Refused(err, errors.IsConflict, "apply over another's field")
	causes := causesOf(err)
	t.Want(len(causes) == 1 && causes[0].Type == metav1.CauseTypeFieldManagerConflict && causes[0].Field == ".data.k", "the causes are %v", causes)
	forced, err := maps.Apply(t, theirs, metav1.ApplyOptions{FieldManager: "theirs", Force: true})
	t.Must(err, "apply with force")
	t.Want(forced.Data["k"] == "2" && forced.Data["l"] == "1", "forced to %v", forced.Data)
	left, err := maps.Apply(t, coreconfig.ConfigMap("a", namespace), mine)
	t.Must(err, "apply nothing")
	t.Want(left.Data["k"] == "2" && left.Data["l"] == "", "left is %v", left.Data)
	extracted, err := coreconfig.ExtractConfigMap(left, "theirs")
	t.Must(err, "extract")
	t.Want(len(extracted.Data) == 1 && extracted.Data["k"] == "2", "extracted %v", extracted.Data)
	t.appliedDeployment(namespace)
}

func causesOf(err error) []metav1.StatusCause {
	status, is := err.(errors.APIStatus)
	if !is || status.Status().Details == nil {
		return nil
	}
	return status.Status().Details.Causes
}

// appliedDeployment has lists with keys, a status and a scale with owners of their own.
func (t *T) appliedDeployment(namespace string) {
	deployments := t.Clients(t.Config()).AppsV1().Deployments(namespace)
	container := func(name string) *coreconfig.ContainerApplyConfiguration {
		return coreconfig.Container().WithName(name).WithImage("example.org/" + name)
	}
	configuration := func(containers ...*coreconfig.ContainerApplyConfiguration) *appsconfig.DeploymentApplyConfiguration {
		labels := map[string]string{"app": "a"}
		return appsconfig.Deployment("d", namespace).WithSpec(appsconfig.DeploymentSpec().WithPaused(true).
			WithReplicas(0).WithSelector(metaconfig.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(coreconfig.PodTemplateSpec().WithLabels(labels).WithSpec(coreconfig.PodSpec().WithContainers(containers...))))
	}
	_, err := deployments.Apply(t, configuration(container("one")), metav1.ApplyOptions{FieldManager: "first"})
	t.Must(err, "apply a deployment")
	both, err := deployments.Apply(t, configuration(container("two")), metav1.ApplyOptions{FieldManager: "second"})
	t.Must(err, "apply another container")
	t.Want(len(both.Spec.Template.Spec.Containers) == 2, "%d containers", len(both.Spec.Template.Spec.Containers))
	extracted, err := appsconfig.ExtractDeployment(both, "second")
	t.Must(err, "extract the deployment")
	containers := extracted.Spec.Template.Spec.Containers
	t.Want(len(containers) == 1 && *containers[0].Name == "two" && *extracted.Spec.Replicas == 0, "extracted %v", containers)
	scaled, err := deployments.Patch(t, "d", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{FieldManager: "third"}, "scale")
	t.Must(err, "scale by patch")
	_ = scaled
	_, err = deployments.Apply(t, configuration(container("one")), metav1.ApplyOptions{FieldManager: "first"})
	t.Refused(err, errors.IsConflict, "apply over the scaler's replicas")
	condition := appsconfig.DeploymentCondition().WithType("Nice").WithStatus("True").WithLastUpdateTime(metav1.Now()).WithLastTransitionTime(metav1.Now())
	status := appsconfig.Deployment("d", namespace).WithStatus(appsconfig.DeploymentStatus().WithConditions(condition))
	got, err := deployments.ApplyStatus(t, status, metav1.ApplyOptions{FieldManager: "teller", Force: true})
	t.Must(err, "apply the status")
	ofStatus, err := appsconfig.ExtractDeploymentStatus(got, "teller")
	t.Must(err, "extract the status")
	t.Want(len(ofStatus.Status.Conditions) == 1, "extracted %v", ofStatus.Status)
}
