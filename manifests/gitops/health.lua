-- Argo CD's health of ServiceRegistration and ConsulConnection: their condition Ready, once it speaks of this generation.
local hs = {status = "Progressing", message = "Waiting for the operator"}
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Waiting for the deletion"
  return hs
end
if obj.spec ~= nil and obj.spec.suspend then
  return {status = "Suspended", message = "spec.suspend is set"}
end
for _, condition in ipairs(obj.status ~= nil and obj.status.conditions or {}) do
  if condition.type == "Ready" and condition.observedGeneration == obj.metadata.generation then
    hs.message = condition.message
    if condition.status == "True" then
      hs.status = "Healthy"
    elseif condition.status == "False" then
      hs.status = "Degraded"
    end
  end
end
return hs
