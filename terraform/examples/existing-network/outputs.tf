output "url" {
  description = "Address of the API, for workflows."
  value       = module.control_plane.url
}
