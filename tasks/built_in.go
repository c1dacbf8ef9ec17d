package tasks

import "github.com/bellhop-dev/bellhop/job"

// BuiltIn lists the tasks that every worker can serve, so that they are known before the first worker has registered them.
func BuiltIn() []job.Definition {
	return []job.Definition{
		RequestHTTP.Definition(),
		WriteLog.Definition(),
		ReplayEvents.Definition(),
		DeliverWebhook.Definition(),
		FanOutWebhook.Definition(),
		SendEmail.Definition(),
		PublishAMQP.Definition(),
	}
}
