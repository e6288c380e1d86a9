package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// known asks who somebody is and what they may do, with certificates, tokens, files of tokens and impersonation.
func known(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	self, err := clients.AuthenticationV1().SelfSubjectReviews().Create(t, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	t.Must(err, "who am I")
	t.Want(slices.Contains(self.Status.UserInfo.Groups, "system:masters"), "I am %v", self.Status.UserInfo)

	accounts := clients.CoreV1().ServiceAccounts(namespace)
	_, err = accounts.Create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
	t.Must(err, "create an account")
	token, err := accounts.CreateToken(t, "robot", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr(int64(600))}}, metav1.CreateOptions{})
	t.Must(err, "ask for a token")
	t.Want(token.Status.Token != "" && !token.Status.ExpirationTimestamp.IsZero(), "the token is %v", token.Status)
	review, err := clients.AuthenticationV1().TokenReviews().Create(t, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}, metav1.CreateOptions{})
	t.Must(err, "review the token")
	user := "system:serviceaccount:" + namespace + ":robot"
	t.Want(review.Status.Authenticated && review.Status.User.Username == user, "the review says %v", review.Status)
	wrong, err := clients.AuthenticationV1().TokenReviews().Create(t, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "x.y.z"}}, metav1.CreateOptions{})
	t.Must(err, "review rubbish")
	t.Want(!wrong.Status.Authenticated && wrong.Status.Error != "", "rubbish is %v", wrong.Status)

	file := filepath.Join(t.Server.Folder, "token")
	t.Must(os.WriteFile(file, []byte(token.Status.Token), 0o600), "write the token")
	robot := rest.AnonymousClientConfig(t.Config())
	robot.BearerTokenFile = file
	robots := t.Clients(robot)
	_, err = robots.CoreV1().ConfigMaps(namespace).List(t, metav1.ListOptions{})
	t.Refused(err, errors.IsForbidden, "list without a right")
	_, err = clients.RbacV1().Roles(namespace).Create(t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}}}, metav1.CreateOptions{})
	t.Must(err, "create a role")
	_, err = clients.RbacV1().RoleBindings(namespace).Create(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "robot", Namespace: namespace}},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"}}, metav1.CreateOptions{})
	t.Must(err, "bind the role")
	t.Until("the right is there", func() bool {
		_, err := robots.CoreV1().ConfigMaps(namespace).List(t, metav1.ListOptions{})
		return err == nil
	})
	t.asked(namespace, user, robots.AuthorizationV1().SelfSubjectAccessReviews().Create)
	rules, err := robots.AuthorizationV1().SelfSubjectRulesReviews().Create(t, &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}, metav1.CreateOptions{})
	t.Must(err, "what may I do")
	t.Want(slices.ContainsFunc(rules.Status.ResourceRules, func(one authorizationv1.ResourceRule) bool {
		return slices.Contains(one.Resources, "configmaps") && slices.Contains(one.Verbs, "list")
	}), "I may %v", rules.Status.ResourceRules)

	pretending := t.Config()
	pretending.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"dev"}, Extra: map[string][]string{"why": {"because"}}}
	jane, err := t.Clients(pretending).AuthenticationV1().SelfSubjectReviews().Create(t, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	t.Must(err, "who is jane")
	t.Want(jane.Status.UserInfo.Username == "jane" && slices.Equal(jane.Status.UserInfo.Groups, []string{"dev", "system:authenticated"}) &&
		slices.Equal(jane.Status.UserInfo.Extra["why"], []string{"because"}), "jane is %v", jane.Status.UserInfo)
	nobody := t.Clients(rest.AnonymousClientConfig(t.Config()))
	_, err = nobody.CoreV1().ConfigMaps(namespace).List(t, metav1.ListOptions{})
	t.Want(errors.IsForbidden(err) || errors.IsUnauthorized(err), "nobody gets %v", err)
	stranger := rest.AnonymousClientConfig(t.Config())
	stranger.BearerToken = "stranger"
	_, err = t.Clients(stranger).CoreV1().ConfigMaps(namespace).List(t, metav1.ListOptions{})
	t.Refused(err, errors.IsUnauthorized, "list with a token nobody gave")
}

type ask func(context.Context, *authorizationv1.SelfSubjectAccessReview, metav1.CreateOptions) (*authorizationv1.SelfSubjectAccessReview, error)

// asked puts the same question in three ways.
func (t *T) asked(namespace, user string, self ask) {
	reviews := t.Clients(t.Config()).AuthorizationV1()
	for verb, may := range map[string]bool{"list": true, "delete": false} {
		attributes := &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Resource: "configmaps"}
		one, err := reviews.SubjectAccessReviews().Create(t, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: attributes}}, metav1.CreateOptions{})
		t.Must(err, "may they")
		local, err := reviews.LocalSubjectAccessReviews(namespace).Create(t, &authorizationv1.LocalSubjectAccessReview{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
			Spec:       authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: attributes}}, metav1.CreateOptions{})
		t.Must(err, "may they here")
		mine, err := self(t, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes}}, metav1.CreateOptions{})
		t.Must(err, "may I")
		for _, status := range []authorizationv1.SubjectAccessReviewStatus{one.Status, local.Status, mine.Status} {
			t.Want(status.Allowed == may && !status.Denied, "%s: %v", verb, status)
		}
	}
}
