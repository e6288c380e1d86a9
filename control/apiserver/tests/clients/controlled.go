package main

import (
	"bytes"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// heldTokens waits for what the controller of tokens does.
func heldTokens(t *T) {
	namespace, clients := t.Namespace(), t.Clients(t.Config())
	secrets, accounts := clients.CoreV1().Secrets(namespace), clients.CoreV1().ServiceAccounts(namespace)
	account, err := accounts.Create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
	t.Must(err, "create an account")
	secret := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, ObjectMeta: metav1.ObjectMeta{Name: "held"}}
	_, err = secrets.Create(t, secret, metav1.CreateOptions{})
	t.Refused(err, errors.IsInvalid, "create a secret of no account")
	secret.Annotations = map[string]string{corev1.ServiceAccountNameKey: account.Name}
	tokens := map[string]string{}
	for _, secret.Name = range []string{"gone", "held"} {
		_, err = secrets.Create(t, secret, metav1.CreateOptions{})
		t.Must(err, "create a secret")
		var filled *corev1.Secret
		t.Until("the secret is filled", func() bool {
			filled, err = secrets.Get(t, secret.Name, metav1.GetOptions{})
			return err == nil && len(filled.Data[corev1.ServiceAccountTokenKey]) > 0
		})
		t.Want(bytes.Equal(filled.Data[corev1.ServiceAccountRootCAKey], t.Config().CAData) && string(filled.Data[corev1.ServiceAccountNamespaceKey]) == namespace &&
			filled.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID), "the secret holds %v and %v", filled.Data, filled.Annotations)
		tokens[secret.Name] = string(filled.Data[corev1.ServiceAccountTokenKey])
	}
	who := func(name string) string {
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: tokens[name]}}
		review, err := clients.AuthenticationV1().TokenReviews().Create(t, review, metav1.CreateOptions{})
		t.Must(err, "review a token")
		return review.Status.User.Username
	}
	robot := "system:serviceaccount:" + namespace + ":robot"
	t.Must(secrets.Delete(t, "gone", metav1.DeleteOptions{}), "delete a secret")
	t.Want(who("gone") == "" && who("held") == robot, "the tokens are %q's and %q's", who("gone"), who("held"))
	t.Must(accounts.Delete(t, "robot", metav1.DeleteOptions{}), "delete the account")
	t.Want(who("held") == "", "the token of nobody is %q's", who("held"))
	t.Until("the secret goes with its account", func() bool {
		_, err := secrets.Get(t, "held", metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
}

// dangling follows what a flow schema says of its level.
func dangling(t *T) {
	flow := t.Clients(t.Config()).FlowcontrolV1()
	schema := &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "dangling"}, Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "late"}}}
	_, err := flow.FlowSchemas().Create(t, schema, metav1.CreateOptions{})
	t.Must(err, "create a schema")
	t.After(func() { _ = flow.FlowSchemas().Delete(background, "dangling", metav1.DeleteOptions{}) })
	says := func(status flowcontrolv1.ConditionStatus) func() bool {
		return func() bool {
			schema, err := flow.FlowSchemas().Get(t, "dangling", metav1.GetOptions{})
			conditions := schema.Status.Conditions
			return err == nil && len(conditions) == 1 && conditions[0].Type == flowcontrolv1.FlowSchemaConditionDangling && conditions[0].Status == status
		}
	}
	t.Until("the level is missed", says(flowcontrolv1.ConditionTrue))
	level := &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}}}}
	_, err = flow.PriorityLevelConfigurations().Create(t, level, metav1.CreateOptions{})
	t.Must(err, "create a level")
	t.Until("the level is found", says(flowcontrolv1.ConditionFalse))
	t.Must(flow.PriorityLevelConfigurations().Delete(t, "late", metav1.DeleteOptions{}), "delete the level")
	t.Until("the level is missed again", says(flowcontrolv1.ConditionTrue))
}
